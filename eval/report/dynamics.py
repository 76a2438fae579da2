"""Builders of the sections on unlearning dynamics: what was measured while each method trained, against its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval.report.report import RunInfo, Section
from eval.report.sections import series_section
from eval.report.table import role

__all__ = ["dynamics_sections"]

Records = Sequence[Mapping[str, Any]]
"""Evaluations of one run in the order of its steps: ``{"step": n, "values": {metric: number or null}}``."""
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


class _Picture(NamedTuple):
    id: str
    title: str
    metric: str
    label: str
    caption: str
    guide: str
    """Whose final level is drawn: ``oracle`` or ``target``."""


_PICTURES = (
    _Picture(
        "dynamics-forget",
        "Forgetting against steps",
        "forget_Q_A_Prob",
        "forget probability (lower is better)",
        "Probability of the forgotten gold answers, per token, while each method trains.",
        "oracle",
    ),
    _Picture(
        "dynamics-rouge",
        "Forget ROUGE-L against steps",
        "forget_Q_A_ROUGE",
        "forget ROUGE-L (lower is better)",
        "How much of the forgotten gold answers the model's own answers repeat. Gibberish scores low too: read it "
        "beside utility.",
        "oracle",
    ),
    _Picture(
        "dynamics-truth-ratio",
        "Forget truth ratio against steps",
        "forget_truth_ratio",
        "forget truth ratio",
        "How likely wrong answers are beside the right one, folded so that 1 means indifference; the oracle's level is "
        "the aim, not 1.",
        "oracle",
    ),
    _Picture(
        "dynamics-utility",
        "Utility against steps",
        "model_utility",
        "model utility (higher is better)",
        "What must survive. A line that falls to 0 is a model that has collapsed.",
        "target",
    ),
    _Picture(
        "dynamics-retain",
        "Retain ROUGE-L against steps",
        "retain_Q_A_ROUGE",
        "retain ROUGE-L (higher is better)",
        "Answers to questions that must still be answered.",
        "target",
    ),
)


def dynamics_sections(
    runs: Sequence[RunInfo], measured: Mapping[str, Records], results: Results, *, sample: str
) -> list[Section]:
    """Draw forgetting and utility of every method against its optimizer steps, and tabulate the values.

    Args:
        runs: Rows of the report; only the methods among them are drawn.
        measured: Evaluations of each run, by method; runs without any are left out.
        results: Final results, for the levels of target and oracle.
        sample: One sentence: on which questions the lines were measured.
    """
    drawn = [
        (run, measured[run.method])
        for run in runs
        if role(run.method) == "method" and measured.get(run.method)
    ]
    sections = []
    pictures = (*_PICTURES, *_benchmark_pictures(drawn))
    for picture in pictures:
        lines = [_line(run, records, picture.metric) for run, records in drawn]
        lines = [line for line in lines if line["x"]]
        if lines:
            level = results.get(picture.guide, {}).get(picture.metric, {}).get("value")
            guide = {"axis": "y", "value": level, "label": f"{picture.guide}'s level"}
            sections.append(
                series_section(
                    picture.id,
                    picture.title,
                    lines,
                    x_label="optimizer steps",
                    y_label=picture.label,
                    caption=f"{picture.caption} {sample}",
                    guides=[] if level is None else [guide],
                )
            )
    return [*sections, _table(drawn, pictures)] if sections else []


def _benchmark_pictures(drawn: Sequence[tuple[RunInfo, Records]]) -> list[_Picture]:
    """Return a picture for each metric that a benchmark other than TOFU's kind opens, LUME's twelve terms included."""
    from eval.metrics.composites import LUME_TERMS
    from eval.metrics.info import METRICS_INFO

    measured = dict.fromkeys(name for _, records in drawn for record in records for name in record["values"])
    if "model_utility" in measured:
        return []
    pictures = []
    for name in measured:
        info = METRICS_INFO.get(name)
        if info is not None and (info.column or name in LUME_TERMS):
            better = f" ({info.direction} is better)" if info.direction in ("higher", "lower") else ""
            guide = "target" if info.direction == "higher" else "oracle"
            label = name.replace("_", " ")
            pictures.append(
                _Picture(
                    f"dynamics-{name.replace('_', '-')}",
                    f"{label[0].upper()}{label[1:]} against steps",
                    name,
                    f"{label}{better}",
                    info.measures,
                    guide,
                )
            )
    return pictures


def _line(run: RunInfo, records: Records, metric: str) -> dict[str, Any]:
    points = [(record["step"], record["values"].get(metric)) for record in records]
    kept = [(step, value) for step, value in points if value is not None]
    return {
        "name": run.method,
        "label": run.title.split(" (")[0],
        "x": [step for step, _ in kept],
        "y": [value for _, value in kept],
    }


def _table(drawn: Sequence[tuple[RunInfo, Records]], pictures: Sequence[_Picture]) -> Section:
    measured = {name for _, records in drawn for record in records for name in record["values"]}
    pictures = [picture for picture in pictures if picture.metric in measured]
    columns = [
        {"key": "method", "label": "Method"},
        {"key": "step", "label": "Step"},
        *({"key": p.metric, "label": p.label.partition(" (")[0], "digits": 3} for p in pictures),
    ]
    rows = [
        {"method": run.title, "step": record["step"]}
        | {picture.metric: record["values"].get(picture.metric) for picture in pictures}
        for run, records in drawn
        for record in records
    ]
    return Section(
        id="dynamics-values",
        title="Values along the steps",
        type="table",
        caption="Behind the lines above; each evaluation's log lies in the method's folder under dynamics/.",
        data={"columns": columns, "rows": rows},
    )
