"""ROUGE as the field computes it: the `rouge_score` package's tokens and stemmer, without its slow table.

Tokens are runs of ``[a-z0-9]`` of the lower-cased text (accented letters split words), stemmed by Porter's
algorithm when longer than three characters. Scores equal ``rouge_score.RougeScorer(use_stemmer=True)``.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["RougeScores", "exact_match", "rouge_scores", "rouge_tokens", "word_recall"]

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class RougeScores:
    """The three values every log holds for a generation."""

    rouge1_recall: float
    rougeL_f1: float
    rougeL_recall: float

    def as_json(self) -> dict[str, float]:
        """Return the fields under OpenUnlearning's names."""
        return {
            "rouge1_recall": self.rouge1_recall,
            "rougeL_f1": self.rougeL_f1,
            "rougeL_recall": self.rougeL_recall,
        }


@functools.cache
def _stemmer() -> Callable[[str], str]:
    stem: Callable[[str], str] = importlib.import_module("nltk.stem.porter").PorterStemmer().stem
    return stem


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _stemmer()(word) if len(word) > 3 else word


def rouge_tokens(text: str, *, use_stemmer: bool = True) -> list[str]:
    """Return the tokens that ROUGE compares."""
    words = _WORD.findall(text.lower())
    return [_stem(word) for word in words] if use_stemmer else words


def rouge_scores(ground_truth: str, generation: str, *, use_stemmer: bool = True) -> RougeScores:
    """Score a generation against its reference text; an empty side scores 0.

    Args:
        ground_truth: The reference ("target" of `rouge_score`); recall is relative to its length.
        generation: What the model wrote.
        use_stemmer: As TOFU and OpenUnlearning do; MUSE's own scorer does not.
    """
    target = rouge_tokens(ground_truth, use_stemmer=use_stemmer)
    said = rouge_tokens(generation, use_stemmer=use_stemmer)
    if not target or not said:
        return RougeScores(0.0, 0.0, 0.0)
    shared = sum((Counter(target) & Counter(said)).values())
    common = _longest_common_subsequence(target, said)
    recall, precision = common / len(target), common / len(said)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    return RougeScores(shared / len(target), f1, recall)


def exact_match(truth: str, generation: str) -> float:
    """Return 1 where two texts are equal but for case and outer white space; punctuation counts (LUME)."""
    return float(truth.strip().lower() == generation.strip().lower())


def word_recall(truth: str, generation: str) -> float:
    """Return ROUGE-L recall over words set apart by spaces, case and punctuation kept (RWKU's scorer).

    The `rouge` package that RWKU uses also cuts at full stops and counts a repeated word once; on its answers of a
    few words that makes no difference.
    """
    words = truth.split()
    return _longest_common_subsequence(words, generation.split()) / len(words) if words else 0.0


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length, by the bit-parallel recurrence of Hyyrö (2004): one big integer for each column."""
    positions: dict[str, int] = {}
    for i, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << i
    full = (1 << len(first)) - 1
    column = full
    for token in second:
        matches = column & positions.get(token, 0)
        column = (column + matches | column - matches) & full
    return len(first) - column.bit_count()
