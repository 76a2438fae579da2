"""Membership inference: does the model treat forget rows as seen? And privacy leakage against a retain model.

Every score is signed like a loss: higher means less likely a member.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from eval.metrics.probability import EPSILON

__all__ = [
    "MIN_K",
    "auc",
    "min_k",
    "min_k_plus_plus",
    "privacy_leakage",
    "relative_difference",
    "weighted_auc",
    "zlib_score",
]

Array = npt.NDArray[np.float64]

MIN_K = 0.4
"""Share of the least likely tokens that Min-K and Min-K++ look at (OpenUnlearning's configuration)."""


def zlib_score(avg_loss: float, text: str) -> float:
    """Return ``avg_loss`` over the compressed length of ``text`` in bytes (arXiv:2012.07805).

    Args:
        avg_loss: Nats per token.
        text: The decoded answer tokens, which may differ from the raw answer by a space.
    """
    return avg_loss / len(zlib.compress(text.encode("utf-8")))


def _lowest_mean(values: Array, share: float) -> float | None:
    if not len(values):
        return None
    count = max(1, int(share * len(values)))
    return float(-np.sort(values)[:count].mean())


def min_k(logps: npt.ArrayLike, *, share: float = MIN_K) -> float | None:
    """Return minus the mean of the lowest ``max(1, int(share L))`` token log-probabilities (arXiv:2310.16789).

    Args:
        logps: Token log-probabilities without the last token, nats, shape ``(L,)``.
        share: Of the tokens, in (0, 1].

    Returns:
        The score, or ``None`` without tokens.
    """
    return _lowest_mean(np.asarray(logps, dtype=np.float64), share)


def min_k_plus_plus(
    logps: npt.ArrayLike, means: npt.ArrayLike, variances: npt.ArrayLike, *, share: float = MIN_K
) -> float | None:
    """Return Min-K over log-probabilities standardised under the model's own distribution (Min-K++).

    Args:
        logps: Token log-probabilities without the last token, nats, shape ``(L,)``.
        means: ``sum_v p log p`` at each position, shape ``(L,)``.
        variances: ``sum_v p (log p)^2 - mean^2`` at each position; clamped at 1e-6, shape ``(L,)``.
        share: Of the tokens, in (0, 1].

    Returns:
        The score, or ``None`` without tokens.
    """
    spread = np.sqrt(np.maximum(np.asarray(variances, dtype=np.float64), 1e-6))
    z = (np.asarray(logps, dtype=np.float64) - np.asarray(means, dtype=np.float64)) / spread
    return _lowest_mean(z, share)


def auc(forget: npt.ArrayLike, holdout: npt.ArrayLike) -> float:
    """Return ``P(holdout > forget) + P(tie) / 2``: 1 = forget rows clearly memorised, 0.5 = no difference.

    Args:
        forget: Scores of the forget rows, shape ``(N,)``.
        holdout: Scores of rows that were never trained on, shape ``(M,)``.

    Raises:
        ValueError: If either is empty.
    """
    first, second = np.asarray(forget, dtype=np.float64), np.asarray(holdout, dtype=np.float64)
    if not len(first) or not len(second):
        raise ValueError("The AUC needs at least one forget row and one holdout row.")
    ordered = np.sort(first)
    below = np.searchsorted(ordered, second, side="left")
    up_to = np.searchsorted(ordered, second, side="right")
    return float((below + up_to).sum() / (2.0 * len(first) * len(second)))


def weighted_auc(
    forget: npt.ArrayLike, holdout: npt.ArrayLike, forget_weights: Array, holdout_weights: Array
) -> Array:
    """Return the AUC under resampling weights, one for each row of weights.

    Args:
        forget: Shape ``(N,)``.
        holdout: Shape ``(M,)``.
        forget_weights: How often each forget row was drawn, shape ``(B, N)``.
        holdout_weights: How often each holdout row was drawn, shape ``(B, M)``.

    Returns:
        Shape ``(B,)``.
    """
    first, second = np.asarray(forget, dtype=np.float64), np.asarray(holdout, dtype=np.float64)
    order = np.argsort(first, kind="stable")
    running = np.zeros((len(forget_weights), len(first) + 1))
    np.cumsum(forget_weights[:, order], axis=1, out=running[:, 1:])
    below = np.searchsorted(first[order], second, side="left")
    up_to = np.searchsorted(first[order], second, side="right")
    wins = 0.5 * (running[:, below] + running[:, up_to])
    values: Array = (wins * holdout_weights).sum(1) / (running[:, -1] * holdout_weights.sum(1))
    return values


def privacy_leakage(model_auc: float, reference_auc: float = 0.5) -> float:
    """Return PrivLeak (MUSE, arXiv:2407.06460): ``100 ((1 - AUC_u) - (1 - AUC_r)) / (1 - AUC_r + 1e-10)``.

    Args:
        model_auc: Min-K AUC of the model.
        reference_auc: Min-K AUC of the retain model; 0.5 where there is none.

    Returns:
        0 is ideal, -100 fully memorised, large positive values over-unlearned.
    """
    return 100.0 * ((1.0 - model_auc) - (1.0 - reference_auc)) / (1.0 - reference_auc + EPSILON)


def relative_difference(model_auc: float, reference_auc: float) -> float:
    """Return ``100 (AUC_u - AUC_r) / (AUC_r + 1e-10)``."""
    return 100.0 * (model_auc - reference_auc) / (reference_auc + EPSILON)
