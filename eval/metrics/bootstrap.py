"""Percentile bootstrap intervals: seeded, vectorised, one resampling for all values of a split."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["NUM_RESAMPLES", "interval", "mean_interval", "resample_weights"]

Array = npt.NDArray[np.float64]

NUM_RESAMPLES = 1000
"""Resamples behind every interval."""


@functools.lru_cache(maxsize=32)
def resample_weights(n: int, seed: int, num_resamples: int = NUM_RESAMPLES) -> Array:
    """Return how often each of ``n`` items is drawn in each resample, shape ``(num_resamples, n)``; read-only.

    Args:
        n: Number of items.
        seed: Of the draw; different splits take different seeds.
        num_resamples: Number of resamples ``B``.
    """
    weights = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1.0 / n), size=num_resamples)
    floats: Array = weights.astype(np.float64)
    floats.setflags(write=False)
    return floats


def interval(values: npt.ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled aggregates.

    Args:
        values: One aggregate for each resample, NaN where it drew no value, shape ``(B,)``.
        level: Coverage in (0, 1).
    """
    tail = 50.0 * (1.0 - level)
    low, high = np.nanpercentile(np.asarray(values, dtype=np.float64), [tail, 100.0 - tail])
    return float(low), float(high)


def mean_interval(values: npt.ArrayLike, *, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Return the bootstrap interval of a mean.

    Args:
        values: Per-item values, at least one, shape ``(N,)``.
        seed: Of the resampling.
        level: Coverage in (0, 1).
    """
    items = np.asarray(values, dtype=np.float64)
    return interval(resample_weights(len(items), seed) @ items / len(items), level=level)
