"""From token scores and generated texts to the per-item entries of an evaluation log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eval.metrics.fluency import ngram_entropy
from eval.metrics.gibberish import TextJudge
from eval.metrics.leakage import leaked_spans
from eval.metrics.membership import min_k, min_k_plus_plus, zlib_score
from eval.metrics.memorization import exact_memorization, extraction_strength
from eval.metrics.probability import normalised_probability
from eval.metrics.rouge import rouge_scores
from eval.metrics.truth_ratio import log_truth_ratio, truth_ratio

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.models.language_model import Generation
    from eval.models.scoring import TokenScores

__all__ = [
    "absent_entry",
    "attack_entry",
    "entry",
    "finite",
    "generation_entries",
    "human_texts",
    "leak_entry",
    "loss_entry",
    "membership_entries",
    "memorization_entries",
    "normalised_entry",
    "probability_entry",
    "rouge_entry",
    "truth_ratio_entry",
    "wrong_probability_entry",
]

Entry = dict[str, Any]


def entry(rows: Sequence[Mapping[str, Any]]) -> Entry:
    """Wrap per-item values, in row order; `agg_value` is filled in once every aggregate is known."""
    return {"agg_value": None, "value_by_index": {str(i): dict(row) for i, row in enumerate(rows)}}


def absent_entry(reason: str) -> Entry:
    """Stand in for a metric that cannot be had, with the reason."""
    return {"agg_value": None, "reason": reason}


def finite(value: float | None) -> float | None:
    """Return ``None`` for what a log cannot hold: a broken model's NaN, a loss of infinity."""
    return value if value is not None and isfinite(value) else None


def probability_entry(scores: Sequence[TokenScores]) -> Entry:
    """Per-item ``prob`` and ``avg_loss`` of one answer an item."""
    return entry([{"prob": finite(s.prob), "avg_loss": finite(s.avg_loss)} for s in scores])


def wrong_probability_entry(scores: Sequence[Sequence[TokenScores]]) -> Entry:
    """Per-item lists of ``prob`` and ``avg_loss`` over the wrong answers."""
    return entry(
        [
            {"prob": [finite(s.prob) for s in row], "avg_loss": [finite(s.avg_loss) for s in row]}
            for row in scores
        ]
    )


def normalised_entry(gold: Sequence[TokenScores], wrong: Sequence[Sequence[TokenScores]]) -> Entry:
    """Share of the gold answer among gold and wrong ones."""
    return entry(
        [
            {"prob": finite(normalised_probability(right.prob, [s.prob for s in others]))}
            for right, others in zip(gold, wrong, strict=True)
        ]
    )


def truth_ratio_entry(correct: Sequence[TokenScores], wrong: Sequence[Sequence[TokenScores]]) -> Entry:
    """Truth ratio (wrong over correct) and its log without the epsilon."""
    rows = []
    for right, others in zip(correct, wrong, strict=True):
        losses = [s.avg_loss for s in others]
        rows.append(
            {
                "score": finite(truth_ratio(right.avg_loss, losses)),
                "log_ratio": finite(log_truth_ratio(right.avg_loss, losses)),
            }
        )
    return entry(rows)


def loss_entry(scores: Sequence[TokenScores]) -> Entry:
    """Per-item mean loss and number of tokens of whole texts, for perplexity."""
    return entry([{"avg_loss": finite(s.avg_loss), "num_tokens": s.num_tokens} for s in scores])


def _used(values: npt.NDArray[Any], has_end: bool) -> npt.NDArray[Any]:
    """Leave out the end-of-sequence token where the answer has one."""
    return values[:-1] if has_end else values


def memorization_entries(scores: Sequence[TokenScores], *, has_end: bool = True) -> dict[str, Entry]:
    """Exact memorisation and both extraction strengths of true answers.

    Args:
        scores: One for each row.
        has_end: Whether the last token is the end of the sequence, which the field leaves out.
    """
    # A broken model's NaN has no first choice: such an item has no value.
    hits = [_used(s.hits, has_end) if np.isfinite(s.logps).all() else s.hits[:0] for s in scores]
    return {
        "exact_memorization": entry([{"score": exact_memorization(h)} for h in hits]),
        "extraction_strength": entry([{"score": extraction_strength(h)} for h in hits]),
        "extraction_strength_clean": entry([{"score": extraction_strength(h, clean=True)} for h in hits]),
    }


def attack_entry(forget: Sequence[float | None], holdout: Sequence[float | None]) -> Entry:
    """Scores of one membership attack: higher means less likely a member."""
    parts = {"forget": forget, "holdout": holdout}
    logged = {name: entry([{"score": finite(score)} for score in scores]) for name, scores in parts.items()}
    return logged | {"auc": None, "agg_value": None}


def membership_entries(
    forget: Sequence[TokenScores],
    holdout: Sequence[TokenScores],
    forget_texts: Sequence[str],
    holdout_texts: Sequence[str],
    *,
    has_end: bool = True,
) -> dict[str, Entry]:
    """The four membership attacks that token scores allow; scores must carry moments.

    Args:
        forget: Of the forget rows.
        holdout: Of rows nobody was taught.
        forget_texts: Decoded answer tokens.
        holdout_texts: Likewise.
        has_end: Whether each answer's last token is the end of the sequence, which Min-K leaves out.
    """
    attacks: dict[str, Callable[[TokenScores, str], float | None]] = {
        "mia_loss": lambda s, _: s.avg_loss,
        "mia_zlib": lambda s, text: zlib_score(s.avg_loss, text),
        "mia_min_k": lambda s, _: min_k(_used(s.logps, has_end)),
        "mia_min_k_plus_plus": lambda s, _: _min_k_plus_plus(s, has_end),
    }
    return {
        name: attack_entry(
            [f(s, t) for s, t in zip(forget, forget_texts, strict=True)],
            [f(s, t) for s, t in zip(holdout, holdout_texts, strict=True)],
        )
        for name, f in attacks.items()
    }


def _min_k_plus_plus(scores: TokenScores, has_end: bool) -> float | None:
    if scores.means is None or scores.variances is None:
        raise ValueError("Min-K++ needs scores with moments.")
    return min_k_plus_plus(*(_used(v, has_end) for v in (scores.logps, scores.means, scores.variances)))


def rouge_entry(inputs: Sequence[str], truths: Sequence[str], generations: Sequence[Generation]) -> Entry:
    """ROUGE of each generation beside its texts."""
    return entry(
        [
            {
                **rouge_scores(truth, generation.text).as_json(),
                "input": prompt,
                "ground_truth": truth,
                "generation": generation.text,
            }
            for prompt, truth, generation in zip(inputs, truths, generations, strict=True)
        ]
    )


def leak_entry(
    generations: Sequence[Generation], spans: Sequence[Sequence[str]], questions: Sequence[str]
) -> Entry:
    """Whether each answer says a key span, and which; an item without any span has no score."""
    rows: list[Entry] = []
    for generation, secrets, question in zip(generations, spans, questions, strict=True):
        said = leaked_spans(generation.text, secrets, question=question)
        rows.append({"score": float(bool(said)) if secrets else None, "spans": list(said)})
    return entry(rows)


def generation_entries(generations: Sequence[Generation], truths: Sequence[str]) -> dict[str, Entry]:
    """What generated answers look like whatever they say: fluency, gibberish, a filter's interventions.

    Args:
        generations: Answers to the forget questions.
        truths: True answers of the benchmark, on which the judge of gibberish is calibrated; too few: no verdict.
    """
    log = {
        "forget_fluency": entry([{"score": ngram_entropy(g.text)} for g in generations]),
        "masked_steps": entry([{"score": float(g.masked_steps)} for g in generations]),
    }
    try:
        judge = TextJudge(truths)
    except ValueError as error:
        return log | {"forget_clean_text": absent_entry(str(error))}
    items = [
        {
            "score": float(judge.is_text(g.text)),
            "bits_per_character": finite(judge.bits_per_character(g.text)),
        }
        for g in generations
    ]
    return log | {"forget_clean_text": entry(items)}


def human_texts(benchmark: Benchmark) -> list[str]:
    """Return every true answer and refusal of a benchmark: what its language looks like."""
    rows = (row for rows in benchmark.splits.values() for row in rows)
    return [*(str(row.answer) for row in rows if row.answer), *benchmark.refusals]
