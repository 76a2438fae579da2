"""A section on the noise of training: each seed's values, and which differences are above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.paired_section import compared_metrics
from eval.report.report import RunInfo, Section
from eval.report.table import format_number, format_p, role
from eval.report.yardsticks import Results

__all__ = ["seeds_section"]


def seeds_section(runs: Sequence[RunInfo], results: Results) -> Section | None:
    """Tabulate mean, spread and each seed's value; results of one seed make no section."""
    rows = [
        row
        for metric, (label, direction) in compared_metrics(results).items()
        for row in _rows(metric, label, direction, runs, results)
    ]
    if not rows:
        return None
    return Section(
        id="seeds",
        title="Seeds",
        type="table",
        caption="The same methods trained with several seeds. Against the best: Welch's t-test over seeds; within the "
        "noise means that the difference could be the luck of the seed. Target and oracle are the same throughout.",
        data={
            "columns": [
                {"key": "metric", "label": "Metric"},
                {"key": "method", "label": "Method"},
                {"key": "mean", "label": "Mean", "digits": 3},
                {"key": "sd", "label": "Spread (sd)", "digits": 3},
                {"key": "seeds", "label": "By seed"},
                {"key": "p", "label": "p against the best"},
                {"key": "reading", "label": "Reading"},
            ],
            "rows": rows,
        },
    )


def _rows(
    metric: str, label: str, direction: int, runs: Sequence[RunInfo], results: Results
) -> list[dict[str, Any]]:
    measured = {
        run: result
        for run in (r.method for r in runs if role(r.method) == "method")
        if len((result := results.get(run, {}).get(metric, {})).get("by_seed") or {}) > 1
    }
    if not measured:
        return []
    titles = {run.method: run.title for run in runs}
    best = max(measured, key=lambda name: direction * float(measured[name]["value"]))
    rows = []
    for name, result in measured.items():
        p = None if name == best else _welch(result["by_seed"], measured[best]["by_seed"])
        rows.append(
            {
                "metric": label,
                "method": titles[name],
                "mean": result["value"],
                "sd": result["sd"],
                "seeds": ", ".join(format_number(value) for value in result["by_seed"].values()),
                "p": "" if p is None else format_p(p),
                "reading": "best" if p is None else "within the noise" if p >= 0.05 else "worse",
            }
        )
    return rows


def _welch(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the p-value of Welch's t-test; values without any spread differ surely or not at all."""
    import numpy as np
    from scipy.stats import ttest_ind

    first, second = list(a.values()), list(b.values())
    if np.ptp(first) == 0.0 and np.ptp(second) == 0.0:
        return 1.0 if first[0] == second[0] else 0.0
    return float(ttest_ind(first, second, equal_var=False).pvalue)
