"""Extraction likelihood and memorisation accuracy of token sequences (arXiv:2210.01504)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["extraction_likelihood", "memorization_accuracy"]


def _ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def extraction_likelihood(
    tokens: Sequence[int], continuations: Sequence[Sequence[int]], *, n: int = 10
) -> float:
    """Return ``EL_n = 1/(T-n) sum_t OVERLAP_n(g_t, x_>=t)`` over prefixes of t = 1 .. T-n tokens.

    ``OVERLAP_n(a, b)`` is the share of a's n-grams, repetitions counted, that occur in b. A continuation that ended
    early has fewer n-grams; the divisor stays.

    Args:
        tokens: The sequence ``x``, shape ``(T,)``.
        continuations: ``continuations[t - 1]`` is the greedy continuation ``g_t`` of ``x[:t]`` up to T tokens in all.
        n: Length of the n-grams.

    Raises:
        ValueError: If the sequence has no more than ``n`` tokens.
    """
    length = len(tokens)
    if length <= n:
        raise ValueError(f"EL_{n} needs more than {n} tokens, not {length}.")
    total = 0.0
    for t in range(1, length - n + 1):
        said = _ngrams(continuations[t - 1], n)
        true = set(_ngrams(tokens[t:], n))
        total += sum(gram in true for gram in said) / len(said) if said else 0.0
    return total / (length - n)


def memorization_accuracy(hits: npt.ArrayLike) -> float:
    """Return ``MA``: the share of tokens from the second on that are the model's first choice.

    Args:
        hits: Whether each of them is the argmax given all before it, shape ``(T - 1,)``.
    """
    return float(np.mean(np.asarray(hits, dtype=bool)))
