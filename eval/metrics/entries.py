"""From token scores and generated texts to the per-item entries of an evaluation log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.fluency import ngram_entropy
from eval.metrics.leakage import leaked_spans
from eval.metrics.membership import min_k, min_k_plus_plus, zlib_score
from eval.metrics.memorization import exact_memorization, extraction_strength
from eval.metrics.probability import normalised_probability
from eval.metrics.rouge import rouge_scores
from eval.metrics.truth_ratio import log_truth_ratio, truth_ratio

if TYPE_CHECKING:
    from eval.models.language_model import Generation
    from eval.models.scoring import TokenScores

__all__ = [
    "absent_entry",
    "entry",
    "fluency_entry",
    "leak_entry",
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


def _finite(value: float | None) -> float | None:
    """Return ``None`` for what a log cannot hold: a broken model's NaN, a loss of infinity."""
    return value if value is not None and isfinite(value) else None


def probability_entry(scores: Sequence[TokenScores]) -> Entry:
    """Per-item ``prob`` and ``avg_loss`` of one answer an item."""
    return entry([{"prob": _finite(s.prob), "avg_loss": _finite(s.avg_loss)} for s in scores])


def wrong_probability_entry(scores: Sequence[Sequence[TokenScores]]) -> Entry:
    """Per-item lists of ``prob`` and ``avg_loss`` over the wrong answers."""
    return entry(
        [
            {"prob": [_finite(s.prob) for s in row], "avg_loss": [_finite(s.avg_loss) for s in row]}
            for row in scores
        ]
    )


def normalised_entry(gold: Sequence[TokenScores], wrong: Sequence[Sequence[TokenScores]]) -> Entry:
    """Share of the gold answer among gold and wrong ones."""
    return entry(
        [
            {"prob": _finite(normalised_probability(right.prob, [s.prob for s in others]))}
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
                "score": _finite(truth_ratio(right.avg_loss, losses)),
                "log_ratio": _finite(log_truth_ratio(right.avg_loss, losses)),
            }
        )
    return entry(rows)


def memorization_entries(scores: Sequence[TokenScores]) -> dict[str, Entry]:
    """Exact memorisation and both extraction strengths of the forget rows' gold answers."""
    # A broken model's NaN has no first choice: such an item has no value.
    hits = [s.hits[:-1] if np.isfinite(s.logps).all() else s.hits[:0] for s in scores]
    return {
        "exact_memorization": entry([{"score": exact_memorization(h)} for h in hits]),
        "extraction_strength": entry([{"score": extraction_strength(h)} for h in hits]),
        "extraction_strength_clean": entry([{"score": extraction_strength(h, clean=True)} for h in hits]),
    }


def membership_entries(
    forget: Sequence[TokenScores],
    holdout: Sequence[TokenScores],
    forget_texts: Sequence[str],
    holdout_texts: Sequence[str],
) -> dict[str, Entry]:
    """The four membership attacks on gold answers; scores must carry moments.

    Args:
        forget: Of the forget rows.
        holdout: Of rows nobody was taught.
        forget_texts: Decoded answer tokens.
        holdout_texts: Likewise.
    """
    attacks: dict[str, Callable[[TokenScores, str], float | None]] = {
        "mia_loss": lambda s, _: s.avg_loss,
        "mia_zlib": lambda s, text: zlib_score(s.avg_loss, text),
        "mia_min_k": lambda s, _: min_k(s.logps[:-1]),
        "mia_min_k_plus_plus": lambda s, _: _min_k_plus_plus(s),
    }
    return {
        name: {
            "forget": entry([{"score": _finite(f(s, t))} for s, t in zip(forget, forget_texts, strict=True)]),
            "holdout": entry(
                [{"score": _finite(f(s, t))} for s, t in zip(holdout, holdout_texts, strict=True)]
            ),
            "auc": None,
            "agg_value": None,
        }
        for name, f in attacks.items()
    }


def _min_k_plus_plus(scores: TokenScores) -> float | None:
    if scores.means is None or scores.variances is None:
        raise ValueError("Min-K++ needs scores with moments.")
    return min_k_plus_plus(scores.logps[:-1], scores.means[:-1], scores.variances[:-1])


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


def fluency_entry(generations: Sequence[Generation]) -> Entry:
    """Word n-gram entropy of each generation, bits."""
    return entry([{"score": ngram_entropy(generation.text)} for generation in generations])
