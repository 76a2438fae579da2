"""Builders: evaluation logs and results become the generic sections a renderer can draw.

A log is OpenUnlearning's layout: ``{metric: {"agg_value": x, "value_by_index": {"0": {...}, ...}}}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.report.paired_section import paired_section
from eval.report.report import RunInfo, Section
from eval.report.run_sections import (
    COMPARABILITY,
    QUALITY_PASSED,
    UTILITY_KEPT,
    goals_section,
    methods_section,
    notes_section,
    settings_section,
)
from eval.report.seeds_section import seeds_section
from eval.report.table import format_p, role
from eval.report.yardsticks import Results, forgotten, kept

if TYPE_CHECKING:
    from eval.types import Example

__all__ = [
    "Log",
    "answers_section",
    "comparison_sections",
    "quality_scatter",
    "series_section",
    "truth_ratio_section",
    "utility_scatter",
]

Log = Mapping[str, Any]
"""An evaluation log in OpenUnlearning's layout."""


def comparison_sections(
    *,
    runs: Sequence[RunInfo],
    results: Results,
    logs: Mapping[str, Log],
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> list[Section]:
    """Build every section of a comparison or of one evaluation; those without data are left out.

    Args:
        runs: Rows in the order they are to appear; target and oracle are named so.
        results: ``{method: {metric: {"value", ...}}}``.
        logs: Evaluation log of each method (OpenUnlearning layout).
        examples: The forget split in log order, for the bare questions; without it, logged prompts are shown.
        notes: What a reader must know beside the standing notes on comparability.
    """
    built = (
        goals_section(runs, results),
        utility_scatter(runs, results),
        quality_scatter(runs, results),
        truth_ratio_section(runs, results, logs),
        paired_section(runs, results, logs),
        seeds_section(runs, results),
        answers_section(runs, logs, examples),
        methods_section(runs),
        settings_section(runs),
        notes_section([*notes, *COMPARABILITY]),
    )
    return [section for section in built if section is not None]


def _value(results: Results, method: str, metric: str) -> float | None:
    value = results.get(method, {}).get(metric, {}).get("value")
    return None if value is None else float(value)


def _interval(results: Results, method: str, metric: str) -> list[float] | None:
    ci = results.get(method, {}).get(metric, {}).get("ci")
    return [float(ci[0]), float(ci[1])] if ci else None


def _short(run: RunInfo) -> str:
    """Return the title without what it explains in brackets, for pictures and answers."""
    return run.title.split(" (")[0] or run.title


def _point(run: RunInfo, x: float, y: float, **more: Any) -> dict[str, Any]:
    return {
        "name": run.method,
        "label": _short(run),
        "kind": run.kind,
        "role": role(run.method),
        "x": x,
        "y": y,
    } | more


def utility_scatter(runs: Sequence[RunInfo], results: Results) -> Section | None:
    """Plot what is still said of the forgotten against what is kept; one model alone makes no picture."""
    across, up = kept(results), forgotten(results)
    if across is None or up is None:
        return None
    points = []
    for run in runs:
        x, y = _value(results, run.method, across.metric), _value(results, run.method, up.metric)
        if x is not None and y is not None:
            points.append(
                _point(
                    run,
                    x,
                    y,
                    x_ci=_interval(results, run.method, across.metric),
                    y_ci=_interval(results, run.method, up.metric),
                )
            )
    if len(points) < 2:
        return None
    return Section(
        id="forget-utility",
        title="Forgetting against utility",
        type="scatter",
        caption="Down and to the right is better: little of the forgotten answers repeated, everything else "
        "kept. The oracle's level is what a model reaches that never saw the answers; lower is no better.",
        data={
            "x": {"label": f"{across.label} (higher is better)"},
            "y": {"label": f"{up.label} (lower is better)"},
            "points": points,
            "guides": _utility_guides(results, across.metric) + _oracle_guide(results, up.metric),
        },
    )


def _utility_guides(results: Results, metric: str) -> list[dict[str, Any]]:
    target = _value(results, "target", metric)
    if target is None:
        return []
    return [{"axis": "x", "value": UTILITY_KEPT * target, "label": f"{100 * UTILITY_KEPT:.0f} % of target"}]


def _oracle_guide(results: Results, metric: str) -> list[dict[str, Any]]:
    oracle = _value(results, "oracle", metric)
    return [] if oracle is None else [{"axis": "y", "value": oracle, "label": "oracle's level"}]


def quality_scatter(runs: Sequence[RunInfo], results: Results) -> Section | None:
    """Plot log10 of forget quality against model utility, for the methods where it is comparable."""
    points, absent = [], []
    for run in runs:
        x, p = _value(results, run.method, "model_utility"), _value(results, run.method, "forget_quality")
        reason = results.get(run.method, {}).get("forget_quality", {}).get("reason")
        if reason is not None and role(run.method) == "method":
            absent.append(_short(run))
        elif x is not None and p is not None and p > 0:
            points.append(_point(run, x, math.log10(p), note=f"p {format_p(p)}"))
    if len(points) < 2 or not any(point["role"] == "method" for point in points):
        return None
    left_out = f" Left out as not comparable: {', '.join(absent)}." if absent else ""
    return Section(
        id="quality-utility",
        title="Forget quality",
        type="scatter",
        caption="Up and to the right is better. Above the line the Kolmogorov-Smirnov test cannot tell the "
        f"truth ratios from the oracle's at the {100 * QUALITY_PASSED:.0f} % level.{left_out}",
        data={
            "x": {"label": "model utility (higher is better)"},
            "y": {"label": "forget quality, log10 p (higher is better)"},
            "points": points,
            "guides": [
                *_utility_guides(results, "model_utility"),
                {"axis": "y", "value": math.log10(QUALITY_PASSED), "label": f"p = {QUALITY_PASSED}"},
            ],
        },
    )


def _items(log: Log, metric: str) -> dict[str, Mapping[str, Any]]:
    """Return the per-question entries of a metric in row order; empty where the log has none."""
    entry = log.get(metric)
    values = entry.get("value_by_index") if isinstance(entry, Mapping) else None
    if not isinstance(values, Mapping):
        return {}
    return {
        str(k): v for k, v in sorted(values.items(), key=lambda pair: int(pair[0])) if isinstance(v, Mapping)
    }


def truth_ratio_section(runs: Sequence[RunInfo], results: Results, logs: Mapping[str, Log]) -> Section | None:
    """Collect the truth ratios behind forget quality, one cumulative curve for each comparable method."""
    series, absent = [], []
    for run in runs:
        scores = [
            item.get("score") for item in _items(logs.get(run.method, {}), "forget_truth_ratio").values()
        ]
        values = sorted(float(s) for s in scores if s is not None and math.isfinite(s))
        if not values:
            continue
        result = results.get(run.method, {}).get("forget_quality", {})
        if result.get("reason") is not None and role(run.method) == "method":
            absent.append(_short(run))
            continue
        note = ""
        if result.get("D") is not None and result.get("value") is not None and run.method != "oracle":
            note = f"D {result['D']:.2f}, p {format_p(result['value'])}"
        series.append(
            {
                "name": run.method,
                "label": _short(run),
                "role": role(run.method),
                "values": [float(f"{v:.5g}") for v in values],
                "note": note,
            }
        )
    if not series:
        return None
    left_out = f" Left out as not comparable: {', '.join(absent)}." if absent else ""
    return Section(
        id="truth-ratios",
        title="Truth ratios",
        type="distribution",
        caption="Behind forget quality: the share of forgotten questions whose truth ratio is at most x. "
        "Right of 1, wrong answers have become likelier than the right one. Forget quality asks how far a "
        f"curve is from the oracle's: D is the largest vertical gap.{left_out}",
        data={
            "x": {
                "label": "truth ratio: wrong over right answer (log scale)",
                "scale": "log",
                "limits": [1e-3, 1e3],
            },
            "y": {"label": "share of questions"},
            "series": series,
        },
    )


def _answers_metric(log: Log) -> str | None:
    """Return which entry holds the answers to forget questions: TOFU's, else the one leaks were looked for in."""
    if "forget_Q_A_ROUGE" in log:
        return "forget_Q_A_ROUGE"
    size = len(_items(log, "leak_rate"))
    for name in sorted(log):
        values = _items(log, name) if name.startswith("forget") else {}
        if values and len(values) == size and "generation" in next(iter(values.values())):
            return name
    return None


def answers_section(
    runs: Sequence[RunInfo], logs: Mapping[str, Log], examples: Sequence[Example] = ()
) -> Section | None:
    """Put each forgotten question's answers side by side: gold, target, oracle, every method."""
    metric = next((name for log in logs.values() for name in [_answers_metric(log)] if name), "")
    generated = {run.method: _items(logs.get(run.method, {}), metric) for run in runs}
    leaks = {run.method: _items(logs.get(run.method, {}), "leak_rate") for run in runs}
    shown = [run for run in runs if generated[run.method]]
    if not shown:
        return None
    keys = sorted({key for run in shown for key in generated[run.method]}, key=int)
    items = []
    for key in keys:
        answers, first = {}, next(generated[run.method][key] for run in shown if key in generated[run.method])
        for run in shown:
            item, leak = generated[run.method].get(key), leaks[run.method].get(key)
            if item is not None:
                answers[run.method] = {
                    "text": str(item.get("generation", "")),
                    "rouge": item.get("rougeL_recall"),
                    "leaked": None if leak is None or leak.get("score") is None else bool(leak["score"]),
                    "spans": [] if leak is None else [str(span) for span in leak.get("spans") or []],
                }
        example = examples[int(key)] if int(key) < len(examples) else None
        question = None if example is None else example.question
        gold = None if example is None else example.answer
        items.append(
            {
                "id": key if example is None else example.id,
                "question": question if question is not None else str(first.get("input", "")),
                "gold": gold if gold is not None else str(first.get("ground_truth", "")),
                "answers": answers,
            }
        )
    return Section(
        id="answers",
        title="Answers",
        type="answers",
        caption="Every forgotten question with the answers behind the numbers. What must not be said is "
        "marked where it was said. The number beside an answer is its ROUGE-L recall of the gold answer.",
        data={
            "methods": [
                {"name": run.method, "label": _short(run), "role": role(run.method), "kind": run.kind}
                for run in shown
            ],
            "items": items,
        },
    )


def series_section(
    section_id: str,
    title: str,
    lines: Sequence[Mapping[str, Any]],
    *,
    x_label: str,
    y_label: str,
    caption: str = "",
    guides: Sequence[Mapping[str, Any]] = (),
) -> Section:
    """Wrap lines over a common axis, such as a leak rate over relearning steps.

    Args:
        section_id: Anchor in the page.
        title: Heading.
        lines: Each ``{"name", "x": [...], "y": [...]}``, optionally ``"label"``, ``"role"`` and a band
            ``"low": [...], "high": [...]`` of the same length.
        x_label: Axis label with unit.
        y_label: Axis label with unit and direction.
        caption: What to see.
        guides: Reference lines, each ``{"axis": "x"|"y", "value", "label"}``.
    """
    data = {
        "x": {"label": x_label},
        "y": {"label": y_label},
        "lines": [dict(line) for line in lines],
        "guides": [dict(guide) for guide in guides],
    }
    return Section(id=section_id, title=title, type="series", caption=caption, data=data)
