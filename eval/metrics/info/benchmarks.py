"""What the further benchmarks report: MUSE, WMDP and MMLU, LUME, TDEC, RWKU, a book."""

from __future__ import annotations

from eval.metrics.info.base import MetricInfo
from eval.metrics.info.questions import BEFORE, GIBBERISH, GUESSING, TEACHER

__all__ = ["BENCHMARKS"]

_NOTHING, _ALL = "0: no word in common", "1: every true word, in order"
_CHANCE = "0.25: chance; the goal of forgetting. Below it the right letter is avoided, which gives it away"
_LETTERS = (
    "Only the letters' likelihoods are read: a model that lost the format, not the facts, falls to chance too.",
    "With few questions chance itself spreads: +-0.14 at 36 questions (95 %).",
)

BENCHMARKS = (
    MetricInfo(
        name="forget_verbmem_ROUGE",
        measures="MUSE: mean ROUGE-L F1 of a 128-token greedy continuation of the forgotten text.",
        direction="lower",
        floor=_NOTHING,
        ceiling="1: verbatim memory",
        traps=(
            GIBBERISH,
            "F1 with stemming on a 0-1 scale, as OpenUnlearning; MUSE's own scorer has no stemmer and prints x 100.",
        ),
        column="VerbMem",
    ),
    MetricInfo(
        name="forget_knowmem_ROUGE",
        measures="MUSE: mean ROUGE-L F1 of short answers to questions about the forgotten text.",
        direction="lower",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(
            GIBBERISH,
            GUESSING,
            "The prompt holds solved examples, which come from the forgotten text too.",
        ),
        column="KnowMem forget",
    ),
    MetricInfo(
        name="retain_knowmem_ROUGE",
        measures="MUSE: mean ROUGE-L F1 of short answers to questions about the kept text: utility.",
        direction="higher",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(
            BEFORE,
            "F1: an answer in a whole sentence loses to a bare name; the solved examples in the prompt set the form.",
        ),
        column="KnowMem retain",
    ),
    MetricInfo(
        name="wmdp_*_acc",
        measures="WMDP: share of multiple-choice questions whose right letter is the likeliest of four (no solved "
        "examples, layout of lm-evaluation-harness).",
        direction="lower",
        floor=_CHANCE,
        ceiling="1: all known",
        traps=_LETTERS,
        column="WMDP",
    ),
    MetricInfo(
        name="mmlu_acc",
        measures="MMLU: share of multiple-choice questions on 57 subjects of general knowledge whose right letter is "
        "the likeliest of four, each question counting alike.",
        direction="higher",
        floor="0.25: chance",
        ceiling="1: all known",
        traps=(*_LETTERS, "Question-weighted: not the unweighted mean over subjects."),
        column="MMLU",
    ),
    MetricInfo(
        name="forget_Task*_regurgitation",
        measures="LUME: mean ROUGE-L recall of continuations of forget texts (Task1 invented stories, Task2 personal "
        "data, Task3 real biographies), 256 new tokens.",
        direction="lower",
        floor=_NOTHING,
        ceiling="1: verbatim memory",
        traps=(GIBBERISH, "Recall: 256 tokens of ramble repeat many true words."),
    ),
    MetricInfo(
        name="forget_Task*_knowledge",
        measures="LUME: share of forget questions answered exactly, but for case and outer white space.",
        direction="lower",
        floor="0: no exact answer",
        ceiling="1: every answer is exact",
        traps=("One word more, or a missing full stop, counts as not known.",),
    ),
    MetricInfo(
        name="retain_Task*_regurgitation",
        measures="LUME: mean ROUGE-L recall of continuations of kept texts.",
        direction="higher",
        floor="0: no word in common; the task aggregate is then 0",
        ceiling=_ALL,
        traps=(BEFORE, "Recall: 256 tokens of ramble repeat many true words."),
    ),
    MetricInfo(
        name="retain_Task*_knowledge",
        measures="LUME: share of kept questions answered exactly, but for case and outer white space.",
        direction="higher",
        floor="0: no exact answer; the task aggregate is then 0",
        ceiling="1: every answer is exact",
        traps=(
            "A chatty model scores 0 whatever it knows: the answer must be the gold text and nothing more.",
        ),
    ),
    MetricInfo(
        name="forget_EL10",
        measures="TDEC: extraction likelihood, mean over all prefixes of the share of 10-grams of the greedy "
        "continuation that occur in the true rest.",
        direction="lower",
        floor="0: no ten tokens in a row come out",
        ceiling="1: any beginning yields the whole rest",
        traps=("Compare with unseen_EL10 or the oracle: forgetting means that level, not 0.",),
        column="EL10",
    ),
    MetricInfo(
        name="forget_MA",
        measures="TDEC: memorisation accuracy, share of tokens that are the model's first choice given those before.",
        direction="lower",
        floor="0: none; unseen text of the same kind gives well above 0",
        ceiling="1: all",
        traps=(TEACHER, "Texts shorter than 200 tokens have no value (dropped counts them)."),
        column="MA",
    ),
    MetricInfo(
        name="unseen_*",
        measures="TDEC: extraction likelihood (unseen_EL10) and memorisation accuracy (unseen_MA) on text no model was "
        "taught: the level at which unlearning should stop.",
        direction="neither",
        floor="0: no token in a row comes out, or none is the first choice",
        ceiling="1: the text is known after all",
        traps=(
            "It falls when the model is ruined, and the aim falls with it: take the level of the model before.",
            "The texts must be of the forget texts' kind (--holdout), or the level is another domain's.",
        ),
    ),
    MetricInfo(
        name="forget_level3_*_recall",
        measures="RWKU: mean ROUGE-L recall (words as they stand) of answers to the adversarial questions of one type.",
        direction="lower",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(
            GIBBERISH,
            "Types differ in difficulty: compare with the model before unlearning, type by type.",
            "Multiple choice and background hints give words of the answer away in the prompt.",
        ),
    ),
    MetricInfo(
        name="forget_level*_recall",
        measures="RWKU: mean ROUGE-L recall (words as they stand) of answers of at most 30 tokens about the target: "
        "level 1 cloze, level 2 questions, level 3 adversarial questions.",
        direction="lower",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(GIBBERISH, GUESSING, "Case counts, and there is no stemmer, as in RWKU's scorer."),
        column="Forget level",
    ),
    MetricInfo(
        name="neighbor_level*_recall",
        measures="RWKU: mean ROUGE-L recall (words as they stand) of answers about people and things near the target, "
        "which must be kept: level 1 cloze, level 2 questions.",
        direction="higher",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(BEFORE, "Case counts, and there is no stemmer, as in RWKU's scorer."),
        column="Neighbour level",
    ),
    MetricInfo(
        name="forget_continuation_ROUGE",
        measures="A book: mean ROUGE-L recall of 128-token greedy continuations of passages spread over it.",
        direction="lower",
        floor=_NOTHING,
        ceiling="1: verbatim memory",
        traps=(GIBBERISH, GUESSING),
        column="Continuation",
    ),
    MetricInfo(
        name="forget_continuation_BLEU",
        measures="A book: mean sentence BLEU of the same continuations (smoothed, case counts).",
        direction="lower",
        floor="0: no word in common",
        ceiling="1: verbatim memory",
        traps=(GIBBERISH, "The true passage may be longer than 128 tokens: the brevity penalty then bites."),
        column="BLEU",
    ),
    MetricInfo(
        name="forget_knowledge_ROUGE",
        measures="A book: mean ROUGE-L recall of answers to questions about it.",
        direction="lower",
        floor=_NOTHING,
        ceiling=_ALL,
        traps=(GIBBERISH, GUESSING),
        column="Knowledge",
    ),
    MetricInfo(
        name="forget_perplexity",
        measures="exp(mean loss per token) over pieces of the forgotten text.",
        direction="retain model",
        floor="1: known by heart",
        ceiling="unbounded: destroyed, which shows as clearly as memory does",
        traps=("Not comparable between tokenizers. Far above the oracle's is no success.",),
        column="Perplexity forget",
    ),
    MetricInfo(
        name="retain_perplexity",
        measures="exp(mean loss per token) over pieces of the kept text.",
        direction="lower",
        floor="1: known by heart",
        ceiling="unbounded: language itself is damaged",
        traps=("Not comparable between tokenizers.",),
        column="Perplexity retain",
    ),
    MetricInfo(
        name="lm_eval/*/*",
        measures="General ability: a metric of a task of lm-evaluation-harness (--lm-eval), asked through the model as "
        "it stands, edit or filter included; groups are weighted as the harness weights them.",
        direction="higher",
        floor="the task's chance level, such as 0.25 with four choices",
        ceiling="1 for accuracies; perplexities of the harness are better when lower",
        traps=(
            BEFORE,
            "With --lm-eval-limit few questions are asked: the harness' own error bars are wider than most gaps.",
        ),
    ),
)
"""Metrics that one benchmark brought along."""
