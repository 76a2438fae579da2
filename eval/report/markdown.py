"""`report.md`: the main table and each section in plain Markdown, for a pull request or a model card."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.report.report import Report, Section
from eval.report.table import format_number, main_table

__all__ = ["markdown_table", "render_markdown"]

ANSWERS_SHOWN = 5
"""Questions whose answers Markdown shows; the HTML page has all."""


def render_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    columns, rows = main_table(report)
    counts = _inline(", ".join(f"{name} {count}" for name, count in report.benchmark.splits.items()))
    splits = f" ({counts})" if counts else ""
    parts = [
        f"# {_inline(report.name)}",
        f"Benchmark {_inline(report.benchmark.name)}{splits}. Made {_inline(report.created)}.",
        markdown_table(
            ["Method", "Changes", *(f"{c.label} {c.arrow}".strip() for c in columns)],
            [
                [
                    row.run.title,
                    row.changes,
                    *(_cell(cell.text, cell.detail, cell.is_best) for cell in row.cells),
                ]
                for row in rows
            ],
            numeric=range(2, 2 + len(columns)),
            raw=range(2, 2 + len(columns)),
        ),
        "Bold: best of the column among the methods; no single column decides. In brackets: D of the "
        "Kolmogorov-Smirnov test, 95 % bootstrap intervals.",
        "\n".join(f"- **{c.label}**: {c.tooltip}" for c in columns),
    ]
    parts += [f"> {_inline(note)}" for note in report.benchmark.notes]
    for section in report.sections:
        parts.append(f"## {_inline(section.title)}")
        if section.caption:
            parts.append(_inline(section.caption))
        body = _BODIES.get(section.type, _nothing)(section)
        if body:
            parts.append(body)
    return "\n\n".join(parts) + "\n"


def markdown_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Sequence[int] = (),
    raw: Sequence[int] = (),
) -> str:
    """Return a Markdown table whose cells hold any text.

    Args:
        header: Column headings.
        rows: Cells, each row as long as ``header``.
        numeric: Indices of columns aligned to the right.
        raw: Indices of columns whose cells are Markdown already.
    """
    lines = [
        [_inline(text) for text in header],
        ["---:" if i in numeric else "---" for i in range(len(header))],
    ]
    lines += [[text if i in raw else _inline(text) for i, text in enumerate(row)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _inline(text: object) -> str:
    """Escape a text so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~#$&])", r"\\\1", " ".join(str(text).split()))


def _cell(text: str, detail: str, is_best: bool) -> str:
    shown = f"**{_inline(text)}**" if is_best else _inline(text)
    return f"{shown} ({_inline(detail)})" if detail else shown


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, float) else str(value)


def _table(section: Section) -> str:
    columns, rows = section.data["columns"], section.data["rows"]
    return markdown_table(
        [c["label"] for c in columns], [[_plain(row.get(c["key"])) for c in columns] for row in rows]
    )


def _list(section: Section) -> str:
    return "\n".join(f"- {_inline(item)}" for item in section.data["items"])


def _scatter(section: Section) -> str:
    data = section.data
    header = ["Method", data["x"]["label"], data["y"]["label"]]
    rows = [[str(p["label"]), _plain(float(p["x"])), _plain(float(p["y"]))] for p in data["points"]]
    return markdown_table(header, rows, numeric=(1, 2))


def _distribution(section: Section) -> str:
    rows = []
    for series in section.data["series"]:
        values: list[float] = sorted(series["values"])
        median = values[len(values) // 2] if values else None
        rows.append([str(series["label"]), str(len(values)), _plain(median), str(series.get("note") or "–")])
    return markdown_table(["Method", "Questions", "Median", "Against the oracle"], rows, numeric=(1, 2))


def _series(section: Section) -> str:
    data = section.data
    rows = [
        [str(line.get("label", line["name"])), _plain(x), _plain(y)]
        for line in data["lines"]
        for x, y in zip(line["x"], line["y"], strict=True)
    ]
    return markdown_table(["Line", data["x"]["label"], data["y"]["label"]], rows, numeric=(1, 2))


def _answers(section: Section) -> str:
    blocks = []
    items: Sequence[Mapping[str, Any]] = section.data["items"]
    for item in items[:ANSWERS_SHOWN]:
        rows = [["gold", item["gold"]]]
        rows += [
            [method["label"], item["answers"][method["name"]]["text"]]
            for method in section.data["methods"]
            if method["name"] in item["answers"]
        ]
        blocks.append(f"**{_inline(item['question'])}**\n\n" + markdown_table(["Answer of", "Text"], rows))
    if len(items) > ANSWERS_SHOWN:
        blocks.append(f"{len(items) - ANSWERS_SHOWN} more questions are in report.html.")
    return "\n\n".join(blocks)


def _figure(section: Section) -> str:
    return f"(picture in report.html: {_inline(section.data.get('alt', ''))})"


def _nothing(section: Section) -> str:
    return f"(a section of type {_inline(section.type)}; its data are in report.json)"


_BODIES: Mapping[str, Callable[[Section], str]] = {
    "table": _table,
    "list": _list,
    "scatter": _scatter,
    "distribution": _distribution,
    "series": _series,
    "answers": _answers,
    "figure": _figure,
}
