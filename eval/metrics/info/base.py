"""The form of a metric's description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Direction", "MetricInfo"]

Direction = Literal["lower", "higher", "retain model", "half", "neither"]
"""Which way is good."""


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """How to read one metric."""

    name: str
    measures: str
    """What the number is, with its formula."""
    direction: Direction
    """Better when lower, when higher, when close to the retain model's value, when close to 0.5, or no direction."""
    floor: str
    """The smallest value and what it means."""
    ceiling: str
    """The largest value and what it means."""
    traps: tuple[str, ...] = ()
    """How the number misleads."""
    formula: str = ""
    """How it is computed from other metrics; empty: from per-item values, as ``measures`` says."""
    column: str = ""
    """Label of the column it opens in a report's table; empty: none beside the standing ones."""
