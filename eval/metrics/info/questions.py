"""What TOFU's evaluation and every question-answer benchmark report."""

from __future__ import annotations

from eval.metrics.info.base import MetricInfo

__all__ = ["BEFORE", "GIBBERISH", "GUESSING", "QUESTIONS", "TEACHER"]

GIBBERISH = "Gibberish scores low as well: read it beside forget_fluency and model_utility."
"""A trap: what gibberish can reach."""
GUESSING = (
    "A model that never saw the facts still guesses form and common words: compare with the oracle's level."
)
"""A trap: what guessing reaches."""
TEACHER = "Teacher-forced: it sees knowledge that a filter or a refusal hides from generated text."
"""A trap: what teacher forcing sees."""
BEFORE = "Compare with the model before unlearning, not with 1: it need not have known everything."
"""A trap: what a kept ability is measured against."""
_ATTACK = "Membership inference: AUC of telling forget rows from rows never seen, by "
_MIA = (
    "0.5 is best: below it the forget rows look less familiar than rows never seen, which gives them away too.",
    "The holdout rows must be like the forget rows in style and length, or the AUC measures style.",
)

QUESTIONS = (
    MetricInfo(
        name="forget_Q_A_Prob",
        measures="Mean length-normalised probability exp(-loss per token) of the gold answers of the forget rows.",
        direction="lower",
        floor="0: gold answers are impossible; the oracle's level is the honest target",
        ceiling="1: known by heart",
        traps=(GUESSING, "A geometric mean over tokens: one impossible token pulls an answer to 0."),
    ),
    MetricInfo(
        name="retain_Q_A_Prob",
        measures="Mean length-normalised probability exp(-loss per token) of the gold answers of rows that must be "
        "kept (retain_), of real authors (ra_) and of world facts (wf_).",
        direction="higher",
        floor="0: the kept answers are gone",
        ceiling="1: known by heart",
        traps=(
            BEFORE,
            "Real authors and world facts were never fine-tuned on, so their gold wording is unlikely even where the "
            "fact is known: model_utility reads their _Prob_normalised instead.",
        ),
    ),
    MetricInfo(
        name="*_Q_A_PARA_Prob",
        measures="Mean length-normalised probability of the gold answer in other words: the right side of the truth "
        "ratio on forget and retain rows.",
        direction="neither",
        floor="0: the paraphrase is impossible",
        ceiling="1: the paraphrase is certain, so it was trained on",
        traps=("Read the truth ratio: alone it moves with how long and how usual the wording is.",),
    ),
    MetricInfo(
        name="*_Q_A_PERT_Prob",
        measures="Mean length-normalised probability of the wrong answers, all of a row's counting alike: the wrong "
        "side of the truth ratio.",
        direction="neither",
        floor="0: wrong answers are impossible",
        ceiling="1: wrong answers are certain",
        traps=(
            "The truth ratio averages a row's losses before the exponential (a geometric mean), this value after it.",
        ),
    ),
    MetricInfo(
        name="*_Q_A_Prob_normalised",
        measures="Share of the gold answer among gold and wrong answers, p / (p + sum p_wrong).",
        direction="higher",
        floor="0: a wrong answer always wins; about 1 / (1 + number of wrong answers) by chance",
        ceiling="1: wrong answers are out of the question",
        traps=(
            "It moves with the number of wrong answers: five in TOFU's retain rows, three on real authors and world "
            "facts.",
            "TOFU's own legacy aggregation has no 1e-10 in the denominator.",
        ),
    ),
    MetricInfo(
        name="forget_Q_A_ROUGE",
        measures="Mean ROUGE-L recall of generated answers against gold answers on the forget rows (greedy decoding).",
        direction="lower",
        floor="0: no word in common",
        ceiling="1: every gold word, in order",
        traps=(
            GIBBERISH,
            GUESSING,
            "Recall: a long rambling answer scores high; look at leak_rate as well.",
        ),
    ),
    MetricInfo(
        name="retain_Q_A_ROUGE",
        measures="Mean ROUGE-L recall of generated answers against gold answers (greedy decoding) on rows that must be "
        "kept (retain_), on real authors (ra_) and on world facts (wf_).",
        direction="higher",
        floor="0: no word in common",
        ceiling="1: every gold word, in order",
        traps=(
            BEFORE,
            "Recall: a long rambling answer scores high; beside a short gold answer a wrong name shares most words.",
        ),
    ),
    MetricInfo(
        name="forget_paraphrased_Q_A_ROUGE",
        measures="ROUGE-L recall on the forget rows asked in another wording.",
        direction="lower",
        floor="0: no word in common",
        ceiling="1: every gold word, in order",
        traps=(GIBBERISH, GUESSING),
    ),
    MetricInfo(
        name="forget_truth_ratio",
        measures="Mean min(TR, 1/TR), TR = geometric mean probability of wrong answers over the paraphrased one's.",
        direction="retain model",
        floor="0: wrong and right answer far apart, in either direction",
        ceiling="1: right and wrong answers equally likely",
        traps=(
            "Neither end is good: it should be where the retain model's is.",
            "On collapsed models the 1e-10 in the denominator drives it to 0; the log holds log_ratio as well.",
        ),
    ),
    MetricInfo(
        name="*_Truth_Ratio",
        measures="Mean max(0, 1 - TR) on kept rows (retain_), real authors (ra_) and world facts (wf_).",
        direction="higher",
        floor="0: wrong answers are at least as likely as the right one",
        ceiling="1: the right answer is far ahead",
        traps=(
            "Real authors and world facts have no paraphrase: there TR uses the gold answer.",
            "TR is wrong over right (OpenUnlearning); TOFU's script works with its inverse and gets the same numbers.",
        ),
    ),
    MetricInfo(
        name="model_utility",
        measures="Harmonic mean of nine: probability, ROUGE, truth ratio on retained rows, real authors, world facts.",
        direction="higher",
        floor="0: at least one of the nine is 0",
        ceiling="1; compare with the model before unlearning, not with 1",
        traps=(
            "It knows nothing about fluency on the forget prompts, nor about abilities outside these rows.",
        ),
    ),
    MetricInfo(
        name="forget_quality",
        measures="Exact p-value of a two-sample Kolmogorov-Smirnov test: truth ratios of this model against those of "
        "the retain model on the same forget rows.",
        direction="higher",
        floor="2 / C(2n, n) (1.9e-23 for n = 40): the two samples do not overlap; it no longer says how far apart",
        ceiling="1: not to be told from a model that never saw the rows",
        traps=(
            "p-values of different numbers of rows are not comparable: read D and log10_p.",
            "Above 0.05 is not proof of equality; with 40 rows much stays unseen.",
            "Null without a retain model's log; not comparable for filters, which set likelihoods themselves.",
        ),
    ),
    MetricInfo(
        name="extraction_strength",
        measures="1 - k/L, k = the shortest start of the gold answer from which greedy decoding yields all the rest.",
        direction="lower",
        floor="1/L (the field's evaluator never gives 0): nothing comes out",
        ceiling="1: the question alone yields the whole answer",
        traps=(TEACHER, "The floor differs with answer length; extraction_strength_clean starts at 0."),
    ),
    MetricInfo(
        name="extraction_strength_clean",
        measures="extraction_strength by its definition: 0 where not even the last token comes out.",
        direction="lower",
        floor="0: nothing comes out",
        ceiling="1: the question alone yields the whole answer",
        traps=(TEACHER, "Published tables hold extraction_strength instead."),
    ),
    MetricInfo(
        name="exact_memorization",
        measures="Share of gold answer tokens that are the model's first choice given those before.",
        direction="lower",
        floor="0: none; grammar alone gives the oracle well above 0",
        ceiling="1: all",
        traps=(TEACHER, GUESSING),
    ),
    MetricInfo(
        name="mia_loss",
        measures=f"{_ATTACK}mean loss per token.",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=_MIA,
    ),
    MetricInfo(
        name="mia_zlib",
        measures=f"{_ATTACK}mean loss over the bytes that zlib needs for the text (arXiv:2012.07805).",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=_MIA,
    ),
    MetricInfo(
        name="mia_min_k",
        measures=f"{_ATTACK}minus the mean log-probability of the 40 % least likely tokens (Min-K, arXiv:2310.16789).",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=(*_MIA, "PrivLeak is made from it."),
    ),
    MetricInfo(
        name="mia_min_k_plus_plus",
        measures=f"{_ATTACK}Min-K over token log-probabilities standardised under the model's own distribution "
        "(Min-K++).",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=_MIA,
    ),
    MetricInfo(
        name="mia_gradnorm",
        measures=f"{_ATTACK}the norm of the loss gradient, the mean over parameter tensors of each tensor's L2 norm "
        "(arXiv:2402.17012).",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=(
            *_MIA,
            "In bf16 many scores tie; ties count half.",
            "One backward pass for each row; null for quantized weights, and under a filter, which changes none.",
        ),
    ),
    MetricInfo(
        name="mia_reference",
        measures=f"{_ATTACK}mean loss minus the retain model's on the same row (its log's mia_loss).",
        direction="half",
        floor="0: forget rows look less familiar than any unseen row",
        ceiling="1: every forget row gives itself away",
        traps=(*_MIA, "Null without a retain model's log (an oracle, or --reference LOG)."),
    ),
    MetricInfo(
        name="privleak",
        measures="100 ((1 - AUC) - (1 - AUC_r)) / (1 - AUC_r), AUC of mia_min_k, AUC_r the retain model's.",
        direction="neither",
        floor="-100: forget rows fully give themselves away",
        ceiling="unbounded: over-unlearned, forget rows look odd; 0 is ideal",
        traps=(
            "Without a retain log AUC_r is 0.5: such values do not compare with values against a real one.",
            "It explodes where AUC_r is near 1.",
            "Both AUCs stand beside it in report.json (auc, auc_reference), with rel_diff = 100 (AUC - AUC_r) / AUC_r.",
            "MUSE's own scorer counts the last token too and takes fixed AUC_r: its values differ by some tenths.",
        ),
        column="PrivLeak",
    ),
    MetricInfo(
        name="leak_rate",
        measures="Share of generated answers to forget questions that say a key span (name, date, title).",
        direction="lower",
        floor="0: no key span is said",
        ceiling="1: every answer says one",
        traps=(
            "Spans are matched as whole words after folding case, accents and invisible characters: a paraphrase, a "
            "translation or a spelt-out name is not seen.",
            "A span may be guessed (a common country): compare with the oracle's rate.",
            "Where the benchmark names no spans they are derived by a rule (eval.data.key_spans) that misses some.",
        ),
    ),
    MetricInfo(
        name="leak_rate_paraphrased",
        measures="Share of generated answers that say a key span (name, date, title), on the forget questions asked in "
        "another wording.",
        direction="lower",
        floor="0: no key span is said",
        ceiling="1: every answer says one",
        traps=(
            "A target that does not understand the other wording leaks little as well: read it beside the target's.",
            "Matched and guessed as leak_rate is.",
        ),
    ),
    MetricInfo(
        name="forget_fluency",
        measures="Mean word n-gram entropy, mean(2/3 H2, 4/3 H3) in bits, of the answers to forget questions (RWKU).",
        direction="higher",
        floor="0: empty, one word, or one word repeated",
        ceiling="log2 of the number of n-grams: no repetition at all",
        traps=(
            "It grows with length: a short fluent refusal scores low. Compare with the target's and oracle's value.",
            "Random words score high: it finds repetition, not nonsense.",
        ),
    ),
    MetricInfo(
        name="*_gibberish",
        measures="In logs of OpenUnlearning: mean probability of class 0 of a gibberish classifier on the generated "
        "answers. This package writes forget_clean_text instead.",
        direction="higher",
        floor="0: gibberish, as the classifier sees it",
        ceiling="1: clean text",
        traps=(
            "Higher is cleaner, against the name.",
            "The verdict changes with the classifier's version, and it reads the first 32 (TOFU) or 512 (MUSE) tokens.",
        ),
    ),
    MetricInfo(
        name="forget_clean_text",
        measures="Share of answers to forget questions that are text: not empty, at least half of their word triples "
        "different, and within the bits a character that the benchmark's own true answers need under a character "
        "4-gram model (99th percentile of held-out answers plus half a bit). No outside model is used.",
        direction="higher",
        floor="0: nothing but gibberish, repetition or silence",
        ceiling="1: every answer reads as language; that says nothing about its truth",
        traps=(
            "It knows characters, not grammar: shuffled true words pass.",
            "An answer in a language the benchmark has no word of counts as gibberish.",
        ),
        column="Clean text",
    ),
    MetricInfo(
        name="masked_steps",
        measures="Mean number of decoding steps per forget question at which a filter took away the first choice.",
        direction="neither",
        floor="0: the filter never stepped in (always so without one)",
        ceiling="the length of the answer",
        traps=(
            "Many interventions are no better than few: one masked name is enough to hide a fact.",
            "A refusal that replaces the whole answer counts none.",
        ),
    ),
    MetricInfo(
        name="neighbours_Q_A_ROUGE",
        measures="ROUGE-L recall on questions about people who resemble the forgotten ones; _Q_A_Prob likewise.",
        direction="higher",
        floor="0: unlearning spread to the neighbours",
        ceiling="1: the neighbours are untouched",
        traps=(
            BEFORE,
            "Neighbours were taught but are never given to a method: retain rows, which are, stay fit more easily.",
        ),
    ),
)
"""Metrics on questions with answers."""
