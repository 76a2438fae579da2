"""Forget quality: can truth ratios be told from those of a model that never saw the forget set?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from math import comb, log10

import numpy as np
import numpy.typing as npt

__all__ = ["KSResult", "exact_ks_floor", "two_sample_ks"]


@dataclass(frozen=True)
class KSResult:
    """A two-sided two-sample Kolmogorov-Smirnov test."""

    p_value: float
    """Exact; underflows to 0 only below 1e-308."""
    log10_p: float
    statistic: float
    """``D``: the largest distance between the two empirical distribution functions."""
    n: tuple[int, int]
    """Sample sizes."""


def two_sample_ks(first: npt.ArrayLike, second: npt.ArrayLike) -> KSResult:
    """Test whether two samples come from one distribution, with the exact p-value.

    For equal sizes ``n`` and ``h = n D`` the exact tail is a lattice-path count (Gnedenko and Korolyuk):
    ``p = 2 sum_{k>=1} (-1)^(k-1) C(2n, n - k h) / C(2n, n)``, evaluated in integers, so the smallest p-values
    keep all digits. The asymptotic p-value is about half of it and is never used.

    Args:
        first: Finite values, shape ``(N,)``.
        second: Finite values, shape ``(M,)``.

    Raises:
        ValueError: If a sample is empty or holds a value that is not finite.
    """
    a = np.sort(np.asarray(first, dtype=np.float64))
    b = np.sort(np.asarray(second, dtype=np.float64))
    if not len(a) or not len(b):
        raise ValueError("The Kolmogorov-Smirnov test needs at least one value in each sample.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("The Kolmogorov-Smirnov test needs finite values.")
    both = np.concatenate([a, b])
    below_a, below_b = np.searchsorted(a, both, side="right"), np.searchsorted(b, both, side="right")
    if len(a) == len(b):
        n, h = len(a), int(np.abs(below_a - below_b).max())
        p = _equal_sizes(n, h)
        return KSResult(float(p), log10(p.numerator) - log10(p.denominator), h / n, (n, n))
    statistic = float(np.abs(below_a / len(a) - below_b / len(b)).max())
    return _unequal_sizes(a, b, statistic)


def _equal_sizes(n: int, h: int) -> Fraction:
    if h == 0:
        return Fraction(1)
    tail = sum((-1) ** (k - 1) * comb(2 * n, n - k * h) for k in range(1, n // h + 1))
    return min(Fraction(1), Fraction(2 * tail, comb(2 * n, n)))


def _unequal_sizes(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], statistic: float) -> KSResult:
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # "Exact calculation unsuccessful": D is so small that p rounds to 1; scipy then says about 1 as well.
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(ks_2samp(a, b, method="exact").pvalue)
    return KSResult(p, log10(p) if p > 0 else float("-inf"), statistic, (len(a), len(b)))


def exact_ks_floor(n: int) -> float:
    """Return ``2 / C(2n, n)``: the p-value of two samples of size ``n`` that do not overlap at all."""
    return float(Fraction(2, comb(2 * n, n)))
