"""Fluency without a classifier: word n-gram entropy of generated text (RWKU, arXiv:2406.10890)."""

from __future__ import annotations

import re
from collections import Counter
from math import log2

__all__ = ["ngram_entropy"]

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def ngram_entropy(text: str) -> float:
    """Return the mean of ``2/3 H_2`` and ``4/3 H_3``, entropies in bits of the text's word n-grams.

    It is 0 for an empty text, a single word and a word repeated for ever. Its limits: it grows with length
    (at most log2 of the number of n-grams), so compare texts of like length and read it beside the target's
    and the oracle's value; a short refusal scores low although it is fluent; random words score high.

    Args:
        text: One generation. Words (with inner apostrophes) and punctuation marks are tokens.
    """
    tokens = _TOKEN.findall(text)
    return (2.0 / 3.0 * _entropy(tokens, 2) + 4.0 / 3.0 * _entropy(tokens, 3)) / 2.0


def _entropy(tokens: list[str], n: int) -> float:
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    total = sum(counts.values())
    return -sum(c / total * log2(c / total) for c in counts.values()) if total else 0.0
