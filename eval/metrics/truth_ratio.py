"""Truth ratio: does the model prefer a right answer over wrong ones of the same form? (TOFU, arXiv:2401.06121)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eval.metrics.probability import EPSILON

__all__ = ["closer_to_one", "log_truth_ratio", "true_better", "truth_ratio"]

Array = npt.NDArray[np.float64]


def truth_ratio(correct_loss: float, wrong_losses: npt.ArrayLike) -> float:
    """Return wrong over correct: ``exp(-mean_j loss(wrong_j)) / (exp(-loss(correct)) + 1e-10)``.

    The mean over wrong answers is geometric (losses are averaged before the exponential). Below about 1 the
    model knows the answer; far above, it avoids it.

    Args:
        correct_loss: ``avg_loss`` of the paraphrased answer (the gold one where no paraphrase exists), nats.
        wrong_losses: ``avg_loss`` of each wrong answer, nats, shape ``(J,)``.
    """
    wrong = float(np.mean(np.asarray(wrong_losses, dtype=np.float64)))
    return float(np.exp(-wrong) / (np.exp(-correct_loss) + EPSILON))


def log_truth_ratio(correct_loss: float, wrong_losses: npt.ArrayLike) -> float:
    """Return ``loss(correct) - mean_j loss(wrong_j)``: the log of the ratio without its epsilon, nats.

    It stays meaningful on collapsed models, whose probabilities the epsilon swallows.
    """
    return float(correct_loss - np.mean(np.asarray(wrong_losses, dtype=np.float64)))


def closer_to_one(ratios: npt.ArrayLike) -> Array:
    """Return ``min(TR, 1 / (TR + 1e-10))``: the forget split's transform, 1 = knows nothing either way."""
    values = np.asarray(ratios, dtype=np.float64)
    return np.minimum(values, 1.0 / (values + EPSILON))


def true_better(ratios: npt.ArrayLike) -> Array:
    """Return ``max(0, 1 - TR)``: every other split's transform, 1 = the right answer is far ahead."""
    return np.maximum(0.0, 1.0 - np.asarray(ratios, dtype=np.float64))
