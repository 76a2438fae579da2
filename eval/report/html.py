"""`report.html`: one self-contained page (no external resource), one renderer for each section type."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.report import plots
from eval.report.marking import mark_spans
from eval.report.report import Report, Section
from eval.report.table import format_number, main_table, role

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["RENDERERS", "Context", "render_html"]

WIDE, NARROW = 760, 350
"""Each picture is drawn at two widths (CSS pixels); the style sheet shows the one that fits the screen."""

FIGURE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
ANSWERS_PER_PAGE = 8
NO_VALUES = ("not comparable", "not informative", "does not apply")
"""Words that stand where a number could not; shown quietly."""


@dataclass(frozen=True)
class Context:
    """What a section renderer may use beside its section."""

    environment: Environment
    colours: Mapping[str, int]
    """Index of each method's colour; 0 or absent: target and oracle."""

    def render(self, macro: str, *arguments: Any) -> Markup:
        """Return what a macro of ``sections.html.j2`` makes of the arguments."""
        from markupsafe import Markup

        module = self.environment.get_template("sections.html.j2").module
        return Markup(getattr(module, macro)(*arguments))


Renderer = Callable[[Section, Context], "Markup"]
RENDERERS: dict[str, Renderer] = {}
"""Section type to its renderer; a section of an unknown type is shown as its data."""


def _renderer(section_type: str) -> Callable[[Renderer], Renderer]:
    def register(function: Renderer) -> Renderer:
        RENDERERS[section_type] = function
        return function

    return register


def render_html(report: Report) -> str:
    """Return the page: readable without scripts, safe with any text in the report, light and dark."""
    from markupsafe import Markup

    environment = _environment()
    colours = plots.colours_of([(run.method, role(run.method)) for run in report.runs])
    context = Context(environment, colours)
    columns, rows = main_table(report)
    sections = [
        {"id": _anchor(section.id), "title": section.title, "caption": section.caption, "type": section.type}
        | {"body": RENDERERS.get(section.type, _unknown)(section, context)}
        for section in report.sections
    ]
    here = Path(__file__).parent
    script = (here / "answers.js.html.j2").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        columns=columns,
        rows=rows,
        sections=sections,
        nav=_nav(sections),
        colours=colours,
        kinds=sorted({run.kind for run in report.runs if role(run.method) == "method"}),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["palette_size"] = plots.PALETTE_SIZE
    environment.globals["no_values"] = NO_VALUES
    environment.filters["cell"] = _cell
    environment.filters["number"] = format_number
    environment.filters["papers"] = _papers
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return environment


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") or "section"


def _nav(sections: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return ``{words: anchor}``: sections of one kind ("Gates: ...", those against steps) share the first's entry."""
    entries: dict[str, str] = {}
    for section in sections:
        is_dynamics = section["id"].startswith("dynamics-")
        entries.setdefault(
            "Along the steps" if is_dynamics else section["title"].partition(": ")[0], section["id"]
        )
    return entries


def _is_number(value: Any, *, or_none: bool = False) -> bool:
    return (or_none and value is None) or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(value: Any, digits: Any = None) -> str:
    if isinstance(value, float) and isinstance(digits, int):
        return f"{value:.{digits}f}"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009")
    if isinstance(value, float):
        return format_number(value)
    return str(value)


def _papers(text: str) -> Markup:
    """Escape a text and make its arXiv numbers links (followed only when clicked)."""
    from markupsafe import Markup, escape

    link = r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>'
    return Markup(re.sub(r"arXiv:(\d{4}\.\d{4,5})", link, str(escape(text))))


def _picture(section: Section, context: Context, draw: Callable[..., str], description: str) -> list[Markup]:
    from markupsafe import Markup

    return [
        Markup(
            draw(
                section.data,
                colours=context.colours,
                width=width,
                prefix=f"{_anchor(section.id)}-{width}",
                title=section.title,
                description=description,
            )
        )
        for width in (WIDE, NARROW)
    ]


@_renderer("table")
def _table(section: Section, context: Context) -> Markup:
    columns: Sequence[Mapping[str, Any]] = section.data["columns"]
    rows = section.data["rows"]
    numeric = {c["key"]: all(_is_number(row.get(c["key"]), or_none=True) for row in rows) for c in columns}
    return context.render("table", columns, rows, numeric, section.title)


@_renderer("list")
def _list(section: Section, context: Context) -> Markup:
    return context.render("bullets", section.data["items"])


@_renderer("scatter")
def _scatter(section: Section, context: Context) -> Markup:
    data = section.data
    description = "; ".join(
        f"{p['label']}: {format_number(p['x'])}, {format_number(p['y'])}" for p in data["points"]
    )
    pictures = _picture(section, context, plots.scatter_svg, description)
    kinds = list(dict.fromkeys(str(p["kind"]) for p in data["points"] if p.get("role") == "method"))
    return context.render("scatter", pictures, data, kinds, context.colours)


@_renderer("distribution")
def _distribution(section: Section, context: Context) -> Markup:
    series = section.data["series"]
    description = "; ".join(f"{s['label']} {s.get('note', '')}".strip() for s in series)
    pictures = _picture(section, context, plots.distribution_svg, description)
    summary = []
    for entry in series:
        values = sorted(entry["values"])
        summary.append(
            {
                "entry": entry,
                "n": len(values),
                "median": values[len(values) // 2] if values else None,
                "note": entry.get("note", ""),
            }
        )
    return context.render("distribution", pictures, summary, context.colours)


@_renderer("series")
def _series(section: Section, context: Context) -> Markup:
    lines = [{"label": line["name"]} | dict(line) for line in section.data["lines"]]
    strangers = [
        line["name"] for line in lines if line["name"] not in context.colours and not line.get("role")
    ]
    colours = dict(context.colours) | {
        name: len(context.colours) + i + 1 for i, name in enumerate(dict.fromkeys(strangers))
    }
    filled = Section(
        id=section.id, title=section.title, type=section.type, data=dict(section.data) | {"lines": lines}
    )
    description = "; ".join(
        f"{line['label']}: {format_number(line['y'][0])} to {format_number(line['y'][-1])}"
        for line in lines
        if line["y"]
    )
    pictures = _picture(filled, Context(context.environment, colours), plots.series_svg, description)
    return context.render("series", pictures, lines, section.data, colours)


@_renderer("figure")
def _figure(section: Section, context: Context) -> Markup:
    data = section.data
    if data.get("mime") not in FIGURE_TYPES or not re.fullmatch(r"[A-Za-z0-9+/=\s]*", data.get("base64", "")):
        return context.render("unknown", section.type, {"alt": data.get("alt", "")})
    return context.render("figure", data["mime"], "".join(data["base64"].split()), data.get("alt", ""))


@_renderer("answers")
def _answers(section: Section, context: Context) -> Markup:
    methods = section.data["methods"]
    items = []
    for item in section.data["items"]:
        answers = []
        for method in methods:
            answer = item["answers"].get(method["name"])
            if answer is not None:
                answers.append(
                    {"method": method, "rouge": answer.get("rouge"), "leaked": answer.get("leaked")}
                    | {"pieces": mark_spans(str(answer["text"]), answer.get("spans") or [])}
                )
        items.append(
            {"question": item["question"], "gold": item["gold"], "id": item["id"], "answers": answers}
        )
    has_leaks = any(a["leaked"] is not None for i in items for a in i["answers"])
    return context.render("answers", methods, items, has_leaks, ANSWERS_PER_PAGE, context.colours)


def _unknown(section: Section, context: Context) -> Markup:
    return context.render("unknown", section.type, section.data)
