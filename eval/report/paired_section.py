"""A section that says which differences between methods are above the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.errors import DataError
from eval.report.report import RunInfo, Section
from eval.report.table import format_p, role
from eval.report.yardsticks import Results, forgotten, kept

__all__ = ["compared_metrics", "paired_section"]


def compared_metrics(results: Results) -> dict[str, tuple[str, int]]:
    """Return the metrics whose differences are tested: name and direction (+1 higher is better, -1 lower is better)."""
    keeps, forgets = kept(results), forgotten(results)
    return {
        **({keeps.metric: (keeps.label, +1)} if keeps else {}),
        **({forgets.metric: (forgets.label, -1)} if forgets else {}),
        "leak_rate": ("leak rate", -1),
    }


def paired_section(
    runs: Sequence[RunInfo], results: Results, logs: Mapping[str, Mapping[str, Any]]
) -> Section | None:
    """Compare each method with the best one, question by question; fewer than two methods make no section."""
    methods = [run for run in runs if role(run.method) == "method" and run.method in logs]
    rows = [
        row
        for metric, (label, direction) in compared_metrics(results).items()
        for row in _rows(metric, label, direction, methods, results, logs)
    ]
    if not rows:
        return None
    return Section(
        id="paired",
        title="Differences and noise",
        type="table",
        caption="Each method against the best one on the same questions: the difference, its 95 % bootstrap interval, "
        "and a two-sided randomization test that exchanges the two methods' answers question by question (p-values "
        "adjusted for the number of methods, Holm). Within the noise means that these questions cannot tell the two "
        "apart. Training noise is not in it: for that, run several seeds.",
        data={
            "columns": [
                {"key": "metric", "label": "Metric"},
                {"key": "method", "label": "Method"},
                {"key": "best", "label": "Best"},
                {"key": "difference", "label": "Difference"},
                {"key": "interval", "label": "95 % interval"},
                {"key": "p", "label": "p (Holm)"},
                {"key": "reading", "label": "Reading"},
            ],
            "rows": rows,
        },
    )


def _rows(
    metric: str,
    label: str,
    direction: int,
    methods: Sequence[RunInfo],
    results: Results,
    logs: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    from eval.metrics.paired import holm, paired_difference

    values = {run.method: results.get(run.method, {}).get(metric, {}).get("value") for run in methods}
    measured = [run for run in methods if values[run.method] is not None]
    if len(measured) < 2:
        return []
    best = max(measured, key=lambda run: direction * float(values[run.method] or 0.0))
    others, differences = [], []
    for run in measured:
        if run is not best:
            try:
                differences.append(paired_difference(logs[run.method], logs[best.method], metric))
            except DataError:  # a log without per-item values of this metric
                continue
            others.append(run)
    adjusted = holm([difference.p_value for difference in differences])
    return [
        {
            "metric": label,
            "method": run.title,
            "best": best.title,
            "difference": f"{difference.value:+.3f}",
            "interval": f"{difference.ci[0]:+.3f} to {difference.ci[1]:+.3f}",
            "p": format_p(p),
            "reading": "within the noise" if p >= 0.05 else "worse",
        }
        for run, difference, p in zip(others, differences, adjusted, strict=True)
    ]
