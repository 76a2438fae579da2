"""Paired tests: do two models differ on the same questions, or is the difference within the noise?

Two models answer the same rows, so a row that is hard for one tends to be hard for the other. Pairing by row takes
that out: the test exchanges the two models' values row by row (a randomization test; exact in distribution, no
normality assumed), and the interval resamples rows, both models' values together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import DataError
from eval.metrics.aggregate import check_reference, row_values, split_seed
from eval.metrics.bootstrap import interval, resample_weights
from eval.metrics.utility import UTILITY_TERMS
from eval.report.open_unlearning import EvalLog

__all__ = ["Difference", "holm", "paired_difference", "paired_logs"]

Array = npt.NDArray[np.float64]
NUM_EXCHANGES = 4999
"""Random exchanges behind a p-value; the smallest p is ``1 / (NUM_EXCHANGES + 1)``."""
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model's aggregate minus another's, on the same rows."""

    value: float
    """First minus second."""
    ci: tuple[float, float]
    """95 % bootstrap interval over rows."""
    p_value: float
    """Two-sided; of the hypothesis that it does not matter which model a row's value came from."""
    n: int
    """Rows that both models have a value for."""

    @property
    def is_noise(self) -> bool:
        """Whether the difference cannot be told from none at the 5 % level."""
        return self.p_value >= LEVEL

    def as_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self) | {"ci": list(self.ci), "is_noise": self.is_noise}


def paired_difference(first: EvalLog, second: EvalLog, metric: str, *, seed: int = 0) -> Difference:
    """Compare two logs of the same questions on one metric.

    Args:
        first: Per-item values in OpenUnlearning's layout.
        second: Those of the other model.
        metric: A mean over rows (``forget_Q_A_ROUGE``, ``leak_rate``, ...), or ``model_utility``.
        seed: Of exchanges and resamples.

    Raises:
        DataError: If a log lacks the metric, or the logs have different numbers of rows.
    """
    names = UTILITY_TERMS if metric == "model_utility" else (metric,)
    pairs = {name: _pair(first, second, name) for name in names}
    combine = _harmonic if metric == "model_utility" else _only
    observed = _difference(combine, [(a.mean(), b.mean()) for a, b in pairs.values()])
    exchanged = _exchanged(combine, pairs, seed)
    weights = {name: resample_weights(len(a), split_seed(name, seed)) for name, (a, _) in pairs.items()}
    resampled = _difference(
        combine,
        [(weights[name] @ a / len(a), weights[name] @ b / len(b)) for name, (a, b) in pairs.items()],
    )
    extreme = int((np.abs(exchanged) >= abs(float(observed)) - 1e-6).sum())
    return Difference(
        value=float(observed),
        ci=interval(resampled),
        p_value=(1 + extreme) / (1 + len(exchanged)),
        n=sum(len(a) for name, (a, _) in pairs.items() if metric != "model_utility" or "ROUGE" in name),
    )


def paired_logs(
    first: EvalLog, second: EvalLog, metrics: Sequence[str] = (), *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compare two logs on several metrics, as plain values.

    Args:
        first: Per-item values in OpenUnlearning's layout.
        second: Those of the other model.
        metrics: Names; empty: every mean over rows that both logs hold, and model utility.
        seed: Of exchanges and resamples.

    Raises:
        DataError: If the logs are of other questions, or one lacks a metric that was named.
    """
    check_reference(first, second)
    if metrics:
        return {name: paired_difference(first, second, name, seed=seed).as_json() for name in metrics}
    out = {}
    for name in (*first, "model_utility"):
        try:
            out[name] = paired_difference(first, second, name, seed=seed).as_json()
        except DataError:  # not per row, or in one log alone
            continue
    if not out:
        raise DataError("The two logs share no metric with per-item values; give two evaluation logs.")
    return out


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for looking at several of them (Holm 1979); the order is kept."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _pair(first: EvalLog, second: EvalLog, name: str) -> tuple[Array, Array]:
    """Return both models' values on the rows that both have a value for."""
    values = []
    for which, log in (("first", first), ("second", second)):
        if not isinstance(log.get(name), Mapping) or "value_by_index" not in log[name]:
            raise DataError(f"The {which} log has no per-item values of {name}; evaluate both models alike.")
        values.append(row_values(name, log[name]))
    a, b = values
    if len(a) != len(b):
        raise DataError(
            f"The logs have {len(a)} and {len(b)} rows of {name}: a paired test needs the same questions."
        )
    present = np.isfinite(a) & np.isfinite(b)
    if not present.any():
        raise DataError(f"No row of {name} has a value in both logs.")
    return a[present], b[present]


Combine = Callable[[Sequence[Any]], Any]


def _only(means: Sequence[Any]) -> Any:
    return means[0]


def _harmonic(means: Sequence[Any]) -> Any:
    stacked = np.stack([np.asarray(mean, dtype=np.float64) for mean in means])
    positive = (stacked > 0).all(0)
    inverse = (1.0 / np.where(stacked > 0, stacked, 1.0)).sum(0)
    return np.where(positive, len(stacked) / inverse, 0.0)


def _difference(combine: Combine, means: Sequence[tuple[Any, Any]]) -> Any:
    return combine([a for a, _ in means]) - combine([b for _, b in means])


def _exchanged(combine: Combine, pairs: Mapping[str, tuple[Array, Array]], seed: int) -> Array:
    """Return the difference after each random exchange; terms of one split exchange the same rows."""
    means = []
    for name, (a, b) in pairs.items():
        moved = _exchanges(len(a), split_seed(name, seed)) @ (b - a).astype(np.float32) / len(a)
        means.append((a.mean() + moved, b.mean() - moved))
    return np.asarray(_difference(combine, means), dtype=np.float64)


@functools.lru_cache(maxsize=8)
def _exchanges(n: int, seed: int) -> npt.NDArray[np.float32]:
    """Return which rows are exchanged each time, 0 or 1, shape ``(NUM_EXCHANGES, n)``; read-only."""
    masks = np.random.default_rng([seed, n]).integers(0, 2, size=(NUM_EXCHANGES, n)).astype(np.float32)
    masks.setflags(write=False)
    return masks
