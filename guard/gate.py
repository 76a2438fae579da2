"""Is this prompt about something forgotten? Several kinds of evidence, weighed by a small calibrated classifier.

Evidence: similarity to the stored questions and answers, the margin over the nearest innocent neighbour, names,
and words that only the forgotten texts have. The classifier (logistic, seventeen features) learns from rewordings of
the forgotten questions against innocent questions, the same questions about other people, and everyday prompts;
an innocent question is never compared with neighbours of its own group, so it stands for a group not seen. The
threshold is set on scores of folds held out by group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.types import Example
from guard.hashing import PhraseHashes
from guard.names import NameEvidence
from guard.normalise import words
from guard.runs import whole_text
from guard.stopwords import STOP_WORDS

__all__ = ["FEATURES", "Classifier", "Decision", "RareWords", "Signals", "fit_classifier"]

Array = npt.NDArray[np.float64]

FEATURES = (
    "question_similarity",
    "answer_similarity",
    "margin",
    "full_name",
    "part_of_name",
    "title",
    "other_name",
    "unknown_name",
    "rare_words",
    "part_of_name_similarity",
    "nobody_named",
    "nobody_named_rare_words",
    "nobody_named_rare_words_similarity",
    "telling",
    "nobody_named_telling",
    "nobody_named_telling_similarity",
    "part_of_name_as_word",
)
"""Names of the classifier's inputs, in order; the last ones weigh prompts that name nobody otherwise."""
_SIGNS = np.array([1, 1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, 1, 1, 1, 1, -1])
"""Which way each feature may count: no evidence may ever speak for its opposite."""
_RARE_WORDS_FOR_ONE = 3
_RIDGE = 1e-4
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says about one prompt."""

    flagged: bool
    score: float
    """Probability that the prompt is about something forgotten, forgotten and innocent prompts weighed equally."""
    threshold: float
    """From this score on a prompt is flagged."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """The features behind the score."""
    entries: tuple[int, ...] = ()
    """Ids of the stored entries it is about; empty if not flagged."""
    phrases: tuple[str, ...] = field(default=(), repr=False)
    """What must not be said in the answer; empty if not flagged."""
    passages: tuple[str, ...] = field(default=(), repr=False)
    """Pieces of documents that must not be continued word by word."""
    hashes: PhraseHashes | None = field(default=None, repr=False, compare=False)
    """What must not be said, where the store keeps hashes alone."""
    is_allowed: bool = False
    """Whether the prompt is on the allowlist; its score is what the gate would have said."""
    failure: str = ""
    """Why the prompt could not be judged (`guard.Deadline`); empty: it was judged."""

    def as_json(self) -> dict[str, Any]:
        """Return the decision without any forgotten text."""
        return {
            "flagged": self.flagged,
            "score": self.score,
            "threshold": self.threshold,
            "evidence": dict(self.evidence),
            "entries": list(self.entries),
            "allowed": self.is_allowed,
        }


@dataclass(frozen=True)
class Signals:
    """The raw evidence of one text."""

    question_similarity: float
    answer_similarity: float
    retain_similarity: float
    names: NameEvidence
    rare_words: float
    telling: float = 0.0

    @property
    def features(self) -> list[float]:
        """Values in the order of `FEATURES`."""
        nearest = max(self.question_similarity, self.answer_similarity)
        part = self.names.part * (1.0 - self.names.other)
        named = self.names.full or self.names.part or self.names.title or self.names.other
        nobody = float(not named and self.names.unknown < 1)
        return [
            self.question_similarity,
            self.answer_similarity,
            nearest - self.retain_similarity,
            self.names.full,
            part,
            self.names.title,
            self.names.other,
            self.names.unknown,
            self.rare_words,
            part * (1.0 - self.names.full) * nearest,
            nobody,
            nobody * self.rare_words,
            nobody * self.rare_words * nearest,
            self.telling,
            nobody * self.telling,
            nobody * self.telling * nearest,
            self.names.as_word,
        ]


class RareWords:
    """Words that forgotten groups' texts have and innocent texts hardly have.

    Args:
        forget: Group and texts of what is forgotten.
        retain: Innocent texts.
        names: Words of forgotten names, which count elsewhere (`guard.names`); looked at when a prompt is.
    """

    def __init__(
        self,
        forget: Sequence[tuple[str, Example]],
        retain: Sequence[Example],
        names: Collection[str] = (),
    ) -> None:
        self._names = names
        self._counts: Counter[str] = Counter()
        for example in retain:
            self._counts.update(set(words(whole_text(example))))
        self._limit = max(1, len(retain) // 400)
        self._by_group: dict[str, set[str]] = {}
        self.add(forget)

    def add(self, forget: Sequence[tuple[str, Example]]) -> None:
        """Take further forgotten texts in."""
        for group, example in forget:
            rare = {
                w
                for w in words(whole_text(example))
                if self._counts[w] <= self._limit
                and w not in STOP_WORDS
                and len(w) > (2 if w.isdigit() else 3)
            }
            self._by_group.setdefault(group, set()).update(rare)

    @property
    def words(self) -> frozenset[str]:
        """All of them."""
        return frozenset().union(*self._by_group.values()).difference(self._names)

    def share(self, text: str, groups: Sequence[str]) -> float:
        """How many rare words of the best of ``groups`` a text has, from 0 to 1 (three or more)."""
        found = {w for w in words(text) if w not in self._names}
        best = max((len(found & self._by_group.get(group, set())) for group in groups), default=0)
        return min(best, _RARE_WORDS_FOR_ONE) / _RARE_WORDS_FOR_ONE


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A logistic classifier on `FEATURES` with its threshold."""

    weights: tuple[float, ...]
    bias: float
    threshold: float
    """Score from which a prompt is flagged."""
    recall: float
    """Share of held-out rewordings at or above the threshold."""
    false_positive_rate: float
    """Share of held-out innocent prompts at or above the threshold."""

    def scores(self, features: Array) -> Array:
        """Return probabilities, shape ``(n,)``, for features of shape ``(n, F)``."""
        # summed row by row: a product with the matrix would round otherwise in a batch of another size
        return _sigmoid((features * np.array(self.weights)).sum(axis=1) + self.bias)


def fit_classifier(
    positives: Array,
    negatives: Array,
    positive_groups: Sequence[str],
    negative_groups: Sequence[str],
    *,
    rate: float,
) -> Classifier:
    """Fit on everything; choose the threshold on scores of folds held out by group.

    Args:
        positives: Features of prompts about something forgotten, shape ``(p, F)``.
        negatives: Features of innocent prompts, shape ``(n, F)``.
        positive_groups: Group of each positive; a group is in one fold only.
        negative_groups: Group of each negative.
        rate: False-positive rate to aim at.
    """
    folds_p, folds_n = _folds(positive_groups), _folds(negative_groups)
    held_p, held_n = np.zeros(len(positives)), np.zeros(len(negatives))
    for fold in range(_FOLDS):
        out_p, out_n = folds_p == fold, folds_n == fold
        some_left = (~out_p).any() and (~out_n).any()
        weights = _fit(positives[~out_p], negatives[~out_n]) if some_left else _fit(positives, negatives)
        held_p[out_p] = positives[out_p] @ weights[:-1] + weights[-1]
        held_n[out_n] = negatives[out_n] @ weights[:-1] + weights[-1]
    allowed = float(np.quantile(held_n, 1.0 - rate, method="higher"))
    wanted = float(np.quantile(held_p, 0.01, method="lower"))
    logit = max(allowed + 1e-6, (allowed + wanted) / 2)
    weights = _fit(positives, negatives)
    return Classifier(
        weights=tuple(float(w) for w in weights[:-1]),
        bias=float(weights[-1]),
        threshold=float(_sigmoid(np.array(logit))),
        recall=float((held_p >= logit).mean()),
        false_positive_rate=float((held_n >= logit).mean()),
    )


def _folds(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    order = {group: i for i, group in enumerate(sorted(set(groups)))}
    return np.array([order[group] % _FOLDS for group in groups], dtype=np.int64)


def _fit(positives: Array, negatives: Array) -> Array:
    """Logistic regression whose weights have the signs `_SIGNS`; the bias comes last.

    A feature whose weight comes out with the wrong sign is left out, and the others are fitted again.
    """
    kept = np.ones(len(_SIGNS), dtype=bool)
    while True:
        found = _newton(positives[:, kept], negatives[:, kept])
        wrong = found[:-1] * _SIGNS[kept] < 0
        if not wrong.any():
            break
        kept[np.flatnonzero(kept)[int(np.argmin(found[:-1] * _SIGNS[kept]))]] = False
    weights = np.zeros(len(_SIGNS) + 1)
    weights[:-1][kept], weights[-1] = found[:-1], found[-1]
    return weights


def _newton(positives: Array, negatives: Array) -> Array:
    """Ridge logistic regression by Newton's method, both classes weighed equally; the bias comes last."""
    x = np.concatenate([positives, negatives])
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    weight = np.where(y == 1, 0.5 / len(positives), 0.5 / len(negatives))
    ridge = np.full(x.shape[1], _RIDGE)
    ridge[-1] = 1e-6
    w: Array = np.zeros(x.shape[1])
    for _ in range(50):
        p = _sigmoid(x @ w)
        gradient = x.T @ (weight * (p - y)) + ridge * w
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        w = w - step
        if float(np.abs(step).max()) < 1e-6:
            break
    return w


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -50, 50))), dtype=np.float64)
