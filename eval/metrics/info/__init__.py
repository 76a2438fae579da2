"""What each metric measures, which way it is better, and how it misleads: `unlearn metrics explain NAME`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from eval.errors import UnknownNameError
from eval.metrics.info.base import MetricInfo
from eval.metrics.info.benchmarks import BENCHMARKS
from eval.metrics.info.questions import QUESTIONS
from eval.metrics.info.summaries import SUMMARIES

__all__ = ["METRICS_INFO", "MetricInfo"]


class _Catalogue(Mapping[str, MetricInfo]):
    """Descriptions by name; one name may stand for several metrics (``*_Truth_Ratio``), and any of them finds it."""

    def __init__(self, infos: tuple[MetricInfo, ...]) -> None:
        self._infos = {info.name: info for info in infos}

    def __getitem__(self, name: str) -> MetricInfo:
        if name in self._infos:
            return self._infos[name]
        for suffix in ("_Q_A_Prob", "_Q_A_ROUGE"):
            if name in (f"ra{suffix}", f"wf{suffix}"):
                return self._infos[f"retain{suffix}"]
            if name == f"neighbours{suffix}":
                return self._infos["neighbours_Q_A_ROUGE"]
        for pattern, info in self._infos.items():
            if "*" in pattern and re.fullmatch(re.escape(pattern).replace(r"\*", r"\w+"), name):
                return info
        raise UnknownNameError("metric", name, self._infos)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


METRICS_INFO: Mapping[str, MetricInfo] = _Catalogue((*QUESTIONS, *BENCHMARKS, *SUMMARIES))
"""Every documented metric. Looking up a name of a report or a log finds the description that covers it.

An unknown name raises `UnknownNameError`, which names the nearest.
"""
