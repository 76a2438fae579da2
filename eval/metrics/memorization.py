"""Memorisation under teacher forcing: exact memorisation and extraction strength.

Both read which answer tokens are the model's first choice. As the field does, they leave out the last label
because it is the end-of-sequence token: ``L = n - 1``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["exact_memorization", "extraction_strength", "without_last"]


def without_last(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Drop the end-of-sequence position, shape ``(n,)`` to ``(n - 1,)``."""
    return values[:-1]


def exact_memorization(hits: npt.ArrayLike) -> float | None:
    """Return the share of tokens that are the model's first choice; ``None`` without tokens.

    Args:
        hits: Whether each token is the argmax, last token already left out, shape ``(L,)``.
    """
    matches = np.asarray(hits, dtype=bool)
    return float(matches.mean()) if len(matches) else None


def extraction_strength(hits: npt.ArrayLike, *, clean: bool = False) -> float | None:
    """Return the share of an answer that comes out unaided once its beginning is given.

    ``1 - k / L`` with ``k`` the smallest start from which every token is the model's first choice
    (arXiv:2506.12618). Where even the last token is missed, the definition gives ``k = L`` and 0; the field's
    evaluator stops at ``k = L - 1`` and so never scores below ``1 / L``.

    Args:
        hits: Whether each token is the argmax, last token already left out, shape ``(L,)``.
        clean: Use the definition (0 where nothing is extracted) instead of the field's floor.

    Returns:
        The score, or ``None`` without tokens.
    """
    matches = np.asarray(hits, dtype=bool)
    length = len(matches)
    if not length:
        return None
    misses = np.flatnonzero(~matches)
    start = int(misses[-1]) + 1 if len(misses) else 0
    if not clean:
        start = min(start, length - 1)
    return 1.0 - start / length
