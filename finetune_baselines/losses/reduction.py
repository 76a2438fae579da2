"""How a loss becomes a scalar where there may be nothing to average."""

from __future__ import annotations

from torch import Tensor

__all__ = ["masked_mean", "mean_or_zero"]


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean, or an exact 0 that still hangs on the graph where there are no values (never NaN).

    Args:
        values: Any shape; flattened.

    Returns:
        Shape ``()``.
    """
    return values.mean() if values.numel() else values.sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over rows of each row's mean over its masked positions; a row without any counts as 0.

    Args:
        values: Shape ``(B, T)``.
        mask: Positions that count, shape ``(B, T)``.

    Returns:
        Shape ``()``; an exact 0 where there is no row.
    """
    counted = (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    return mean_or_zero(counted)
