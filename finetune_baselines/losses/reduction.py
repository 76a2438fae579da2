"""How a loss becomes a scalar where there may be nothing to average."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_or_zero"]


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean, or an exact 0 that still hangs on the graph where there are no values (never NaN).

    Args:
        values: Any shape; flattened.

    Returns:
        Shape ``()``.
    """
    return values.mean() if values.numel() else values.sum()
