"""Pictures as inline SVG: text kept as text, colours as CSS variables so that they follow light and dark.

Matplotlib's object interface is used (no pyplot, no global figure state); output is deterministic.
"""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MARKERS", "PALETTE_SIZE", "colours_of", "distribution_svg", "scatter_svg", "series_svg"]

PALETTE_SIZE = 10
"""Number of ``--series-i`` colours the style sheet defines."""

MARKERS: Mapping[str, str] = {"none": "D", "suppression": "s", "edit": "^", "weights": "o"}
"""Marker of each kind: a plain model a diamond, a filter a square, an edit a triangle, training a circle."""

# Matplotlib needs real colours: these stand for CSS variables and are exchanged in the finished SVG.
_INK, _MUTED, _GRID, _PAPER = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _PAPER: "--paper"}
_SERIES = tuple(f"#0102{i:02x}" for i in range(PALETTE_SIZE))
_VARIABLES |= {colour: f"--series-{i + 1}" for i, colour in enumerate(_SERIES)}

_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""

_FONT = 11.5
"""Font size in CSS pixels: at 72 dots per inch a point, a dot and a CSS pixel are one length."""


def colours_of(entries: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Give each method (name, role) its colour's index, from 1, the same in every picture."""
    names = [name for name, of_role in entries if of_role == "method"]
    return {name: i + 1 for i, name in enumerate(dict.fromkeys(names))}


def _colour(entry: Mapping[str, Any], colours: Mapping[str, int]) -> str:
    if entry.get("role") == "before":
        return _MUTED
    if entry.get("role") == "reference":
        return _INK
    return _SERIES[(colours.get(str(entry["name"]), 1) - 1) % PALETTE_SIZE]


def _dash(entry: Mapping[str, Any], colours: Mapping[str, int]) -> Any:
    if entry.get("role") in ("before", "reference"):
        return "-" if entry["role"] == "reference" else (0, (4, 2))
    return _DASHES[(colours.get(str(entry["name"]), 1) - 1) // PALETTE_SIZE % len(_DASHES)]


def _axes(width: int, height: int, data: Mapping[str, Any]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    left, right, top, bottom = 56, 14, 12, 50
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=_FONT, labelcolor=_MUTED, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GRID)
    for which in ("x", "y"):
        label = str(data.get(which, {}).get("label", ""))
        axis_label = axes.set_xlabel if which == "x" else axes.set_ylabel
        axis_label(label, fontsize=_FONT + 0.5, color=_MUTED, parse_math=False, labelpad=7)
    return figure, axes


def _guides(axes: Any, data: Mapping[str, Any], *, width: int) -> None:
    for guide in data.get("guides", ()):
        text = str(guide.get("label", ""))
        style = {"color": _MUTED, "linewidth": 1.1, "linestyle": (0, (3, 3)), "zorder": 1}
        if guide["axis"] == "x":
            axes.axvline(guide["value"], **style)
            place = {"xy": (guide["value"], 1), "xycoords": ("data", "axes fraction"), "rotation": 90}
            place |= {"xytext": (-4, -4), "ha": "right", "va": "top"}
        else:
            axes.axhline(guide["value"], **style)
            place = {"xy": (0, guide["value"]), "xycoords": ("axes fraction", "data")}
            place |= {"xytext": (4, 4), "ha": "left", "va": "bottom"}
        axes.annotate(
            text, textcoords="offset pixels", fontsize=_FONT - 1, color=_MUTED, parse_math=False, **place
        )


def _svg(figure: Any, *, prefix: str, title: str, description: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": "sans-serif"}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r"\s*<style type=\"text/css\">(.*?)</style>", "", text, flags=re.S)
    text = re.sub(r"(font: [^;\"']*?px) [^;\"]*", r"\1 var(--font)", text)
    text = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r"xlink:href=\"#([^\"]+)\"", rf'href="#{prefix}-\1"', text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d{2})\d+", r"\1", tag[0]), text)  # never in words
    view = re.search(r"viewBox=\"([^\"]+)\"", text)
    head = (
        f'<svg viewBox="{view.group(1) if view else ""}" role="img" aria-labelledby="{prefix}-t {prefix}-d">'
        f'<title id="{prefix}-t">{html.escape(title)}</title>'
        f'<desc id="{prefix}-d">{html.escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :].strip()


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    *,
    obstacles: Sequence[Box] = (),
    radius: float = 7.0,
) -> list[tuple[float, float]]:
    """Choose where each point's label goes, so that labels cover neither points nor one another.

    Greedy: labels are set in the given order, each at the candidate place of least cost (area covered, then
    distance from its point). All lengths in pixels.

    Args:
        points: Centre of each point.
        sizes: Width and height of each label.
        frame: The box labels must stay in.
        obstacles: Further boxes that labels should rather not cover.
        radius: Half size of a point.

    Returns:
        The lower left corner of each label.
    """
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    corners: list[tuple[float, float]] = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        costs: dict[tuple[float, float], float] = {}
        for ring, step in itertools.product((11, 18, 28, 40, 54, 70), range(16)):
            across, up = math.cos(math.pi * step / 8), math.sin(math.pi * step / 8)
            left = x + ring * across - width * (0.5 - 0.5 * across)
            low = y + ring * up - height * (0.5 - 0.5 * up)
            box = (left, low, left + width, low + height)
            cost = 4 * (width * height - _overlap(box, frame)) + 3 * sum(
                _overlap(box, other) for other in taken
            )
            cost += sum(_overlap(box, other) for other in obstacles)
            costs[left, low] = cost + 1.2 * ring + (0 if step % 8 == 0 else 2)
        left, low = min(costs, key=costs.__getitem__)
        corners.append((left, low))
        taken.append((left, low, left + width, low + height))
    return corners


def _label_points(
    figure: Any,
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    colours: Mapping[str, int],
    guides: Sequence[Mapping[str, Any]],
) -> None:
    to_pixels = axes.transData.transform
    placed = [(float(x), float(y)) for x, y in (to_pixels((p["x"], p["y"])) for p in points)]
    sizes = [(6.4 * len(str(p["label"])) + 4, 14.0) for p in points]
    left, bottom, right, top = (float(v) for v in axes.bbox.extents)
    obstacles: list[Box] = []
    for point in points:
        for which, ci in (("x", point.get("x_ci")), ("y", point.get("y_ci"))):
            if ci:
                ends = [to_pixels((v, point["y"]) if which == "x" else (point["x"], v)) for v in ci]
                obstacles.append((ends[0][0] - 1, ends[0][1] - 1, ends[1][0] + 1, ends[1][1] + 1))
    for guide in guides:
        length = 6.0 * len(str(guide.get("label", "")))
        if guide["axis"] == "x":
            x = to_pixels((guide["value"], 0))[0]
            obstacles.append((x - 16, top - length, x, top))
        else:
            y = to_pixels((0, guide["value"]))[1]
            obstacles.append((left, y, left + length, y + 15))
    corners = place_labels(placed, sizes, (left, bottom, right, top), obstacles=obstacles)
    for i, (point, at, size, corner) in enumerate(zip(points, placed, sizes, corners, strict=True)):
        colour = _colour(point, colours)
        near = tuple(min(max(at[k], corner[k]), corner[k] + size[k]) for k in (0, 1))
        if math.dist(at, near) > 14:
            ends = [axes.transData.inverted().transform(end) for end in (at, near)]
            axes.plot([e[0] for e in ends], [e[1] for e in ends], color=colour, linewidth=0.8, zorder=2)
        axes.annotate(
            str(point["label"]),
            xy=(corner[0] + size[0] / 2, corner[1] + size[1] / 2),
            xycoords="figure pixels",
            ha="center",
            va="center",
            fontsize=_FONT,
            color=colour,
            fontweight="bold" if point.get("role") != "method" else "normal",
            parse_math=False,
            annotation_clip=False,
            gid=f"label-{i}",
        )


def _span(values: Sequence[float], *, least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(high - low, least)
    middle = (low + high) / 2
    return middle - 0.62 * room, middle + 0.62 * room


def scatter_svg(
    data: Mapping[str, Any],
    *,
    colours: Mapping[str, int],
    width: int,
    prefix: str,
    title: str,
    description: str,
) -> str:
    """Draw labelled points with their intervals and reference lines; the marker shows the kind of method."""
    points = [p for p in data["points"] if p.get("x") is not None and p.get("y") is not None]
    figure, axes = _axes(width, 400 if width > 500 else 340, data)
    guides = list(data.get("guides", ()))
    for which, setter in (("x", axes.set_xlim), ("y", axes.set_ylim)):
        values = [float(p[which]) for p in points] + [float(g["value"]) for g in guides if g["axis"] == which]
        for point in points:
            values += [float(v) for v in point.get(f"{which}_ci") or ()]
        if values:
            setter(*_span(values, least=0.02))
    _guides(axes, data, width=width)
    for point in points:
        colour = _colour(point, colours)
        for which in ("x", "y"):
            ci = point.get(f"{which}_ci")
            if ci:
                xs, ys = ((ci, [point["y"]] * 2), ([point["x"]] * 2, ci))[which == "y"]
                axes.plot(xs, ys, color=colour, linewidth=1.3, alpha=0.45, zorder=2, solid_capstyle="butt")
        axes.plot(
            [point["x"]],
            [point["y"]],
            marker=MARKERS.get(str(point.get("kind")), "o"),
            markersize=9.5,
            markerfacecolor=_PAPER if point.get("role") == "before" else colour,
            markeredgecolor=colour if point.get("role") == "before" else _PAPER,
            markeredgewidth=1.8 if point.get("role") == "before" else 1.2,
            linestyle="none",
            zorder=3,
        )
    _label_points(figure, axes, points, colours, guides)
    return _svg(figure, prefix=prefix, title=title, description=description)


def distribution_svg(
    data: Mapping[str, Any],
    *,
    colours: Mapping[str, int],
    width: int,
    prefix: str,
    title: str,
    description: str,
) -> str:
    """Draw each series' empirical cumulative distribution; values beyond the limits sit on the edge."""
    figure, axes = _axes(width, 380 if width > 500 else 300, data)
    log = data.get("x", {}).get("scale") == "log"
    values = [float(v) for series in data["series"] for v in series["values"] if not log or v > 0]
    low, high = min(values, default=0.1), max(values, default=1.0)
    limits = data.get("x", {}).get("limits") or (-math.inf, math.inf)
    low, high = max(low, float(limits[0])), min(high, float(limits[1]))
    if low >= high:
        low, high = (low / 2, high * 2 or 1.0) if log else (low - 0.5, high + 0.5)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.xaxis.set_minor_formatter(lambda v, _: "")
        axes.grid(True, which="major", color=_GRID, linewidth=0.8)
        low, high = low / 1.15, high * 1.15
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.015)
    for series in sorted(data["series"], key=lambda s: s.get("role") == "reference"):
        count = len(series["values"])
        if not count:
            continue
        inside = sorted(min(max(float(v), low), high) for v in series["values"])
        thick = series.get("role") == "reference"
        axes.plot(
            [low, *inside, high],
            [0.0, *((i + 1) / count for i in range(count)), 1.0],
            drawstyle="steps-post",
            color=_colour(series, colours),
            linestyle=_dash(series, colours),
            linewidth=3.0 if thick else 1.9,
            zorder=4 if thick else 3,
        )
    _guides(axes, data, width=width)
    return _svg(figure, prefix=prefix, title=title, description=description)


def series_svg(
    data: Mapping[str, Any],
    *,
    colours: Mapping[str, int],
    width: int,
    prefix: str,
    title: str,
    description: str,
) -> str:
    """Draw lines over a common axis, each with its band where it has one."""
    figure, axes = _axes(width, 360 if width > 500 else 300, data)
    for which in ("x", "y"):
        if data.get(which, {}).get("scale") == "log":
            (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    for line in data["lines"]:
        colour = _colour(line, colours)
        ys = [math.nan if y is None else float(y) for y in line["y"]]
        if line.get("low") and line.get("high"):
            axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.14, linewidth=0)
        axes.plot(
            line["x"],
            ys,
            color=colour,
            linestyle=_dash(line, colours),
            linewidth=2.2,
            marker="o",
            markersize=4,
        )
    _guides(axes, data, width=width)
    return _svg(figure, prefix=prefix, title=title, description=description)
