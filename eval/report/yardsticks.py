"""Which metric says what was kept, and which what was forgotten: benchmarks differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Results", "Yardstick", "forgotten", "kept"]

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``{method: {metric: {"value", ...}}}``."""


class Yardstick(NamedTuple):
    """A metric that stands for one side of unlearning, and what a picture calls it."""

    metric: str
    label: str


KEPT = (
    Yardstick("model_utility", "model utility"),
    Yardstick("retain_Q_A_ROUGE", "retain ROUGE-L"),
    Yardstick("retain_knowmem_ROUGE", "retain KnowMem"),
    Yardstick("neighbor_level1_recall", "neighbour recall, level 1"),
    Yardstick("mmlu_acc", "MMLU accuracy"),
)
"""Higher is better; the first that was measured stands for what a method kept."""

FORGOTTEN = (
    Yardstick("forget_Q_A_ROUGE", "forget ROUGE-L"),
    Yardstick("forget_knowmem_ROUGE", "forget KnowMem"),
    Yardstick("forget_level1_recall", "forget recall, level 1"),
    Yardstick("forget_continuation_ROUGE", "forget continuation ROUGE-L"),
    Yardstick("wmdp_bio_acc", "WMDP bio accuracy"),
    Yardstick("wmdp_cyber_acc", "WMDP cyber accuracy"),
    Yardstick("wmdp_chem_acc", "WMDP chem accuracy"),
)
"""Lower is better; the first that was measured stands for what a method still says."""


def kept(results: Results) -> Yardstick | None:
    """Return what stands for the kept part in these results."""
    return _first(KEPT, results)


def forgotten(results: Results) -> Yardstick | None:
    """Return what stands for the forgotten part in these results."""
    return _first(FORGOTTEN, results)


def _first(yardsticks: tuple[Yardstick, ...], results: Results) -> Yardstick | None:
    for yardstick in yardsticks:
        if any(found.get(yardstick.metric, {}).get("value") is not None for found in results.values()):
            return yardstick
    return None
