"""Answer probability: how likely the model finds an answer, per token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["EPSILON", "normalised_probability", "probability"]

EPSILON = 1e-10
"""The field's guard against division by zero; parity needs exactly this value."""

Array = npt.NDArray[np.float64]


def probability(avg_loss: npt.ArrayLike) -> Array:
    """Return length-normalised probabilities ``exp(-avg_loss)``: geometric means over an answer's tokens.

    Args:
        avg_loss: Mean negative log-probability per token, end-of-sequence included, nats. Any shape.
    """
    return np.exp(-np.asarray(avg_loss, dtype=np.float64))


def normalised_probability(correct: float, wrong: npt.ArrayLike, *, epsilon: float = EPSILON) -> float:
    """Return the right answer's share ``p / (p + sum_j p_j + epsilon)`` (TOFU, arXiv:2401.06121).

    Args:
        correct: Probability of the right answer.
        wrong: Probabilities of the wrong answers, shape ``(J,)``.
        epsilon: TOFU's own legacy aggregation has none (0).
    """
    return float(correct / (correct + np.sum(np.asarray(wrong, dtype=np.float64)) + epsilon))
