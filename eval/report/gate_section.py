"""What a gate does on prompts it was not fitted on: who opens it, how well it ranks, where to set its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.metrics.membership import auc
from eval.report.report import Section
from eval.report.sections import series_section

__all__ = ["FIRES", "GateReadings", "gate_sections", "gates_together", "threshold_at"]

FIRES = 0.5
"""A gate fires where it is open further than this."""
FALSE_FIRES = 0.02
"""Share of innocent prompts that may fire at the threshold that is proposed."""
_TABLE, _PICTURE = "-gate", "-gate-openings"
"""How the ids of a method's two sections end."""
_GRID = tuple(i / 20 for i in range(21))
"""Openings at which the curves are drawn."""


@dataclass(frozen=True, kw_only=True)
class GateReadings:
    """How far the gates opened on the prompts of one kind."""

    split: str
    """Which prompts."""
    should_open: bool
    values: npt.NDArray[np.float32]
    """In [0, 1], shape ``(prompts, layers)``."""


def threshold_at(innocent: npt.NDArray[np.float32], rate: float = FALSE_FIRES) -> float:
    """Return the smallest opening that at most ``rate`` of the innocent prompts exceed.

    Args:
        innocent: Gate values of innocent prompts, shape ``(N,)``, at least one.
        rate: Share in [0, 1].
    """
    ordered = np.sort(innocent)
    return float(ordered[max(0, len(ordered) - 1 - int(rate * len(ordered)))])


def gate_sections(method: str, readings: Sequence[GateReadings], layers: Sequence[int]) -> list[Section]:
    """Tabulate and draw the gates of one method.

    Args:
        method: Its name.
        readings: At least one kind of prompts that should open the gates, and one that should not.
        layers: Decoder block of each column of the values.

    Returns:
        A table (prompts, fire rate by layer) whose caption gives AUROC and threshold, and a picture: the
        cumulative distribution of the first gate's opening for each kind of prompts.
    """
    readings = [reading for reading in readings if len(reading.values)]
    same = all(np.allclose(r.values[:, :1], r.values, atol=1e-6) for r in readings)
    shown = [0] if same else list(range(len(layers)))
    names = ["every edited layer" if same else f"layer {layers[i]}" for i in shown]
    opened, innocent = (
        np.concatenate([r.values for r in readings if r.should_open is should]) for should in (True, False)
    )
    quality = []
    for column, name in zip(shown, names, strict=True):
        limit = threshold_at(innocent[:, column])
        caught = float((opened[:, column] > limit).mean())
        quality.append(
            f"{name}: AUROC {auc(innocent[:, column], opened[:, column]):.4f}; at threshold {limit:.3f} at most "
            f"{100 * FALSE_FIRES:.0f} % of the innocent prompts and {100 * caught:.1f} % of the others fire"
        )
    table = Section(
        id=f"{method}{_TABLE}",
        title=f"{method}: when the gate opens",
        type="table",
        caption=f"A gate fires where it is open further than {FIRES}. " + ". ".join(quality) + ".",
        data={
            "columns": [
                {"key": "split", "label": "Prompts"},
                {"key": "wanted", "label": "Should open"},
                {"key": "n", "label": "Number"},
                *(
                    {"key": f"fires_{i}", "label": f"Fires, {name}", "digits": 3}
                    for i, name in zip(shown, names, strict=True)
                ),
                *(
                    {"key": f"mean_{i}", "label": f"Mean opening, {name}", "digits": 3}
                    for i, name in zip(shown, names, strict=True)
                ),
            ],
            "rows": [
                {"split": r.split, "wanted": r.should_open, "n": len(r.values)}
                | {f"fires_{i}": float((r.values[:, i] > FIRES).mean()) for i in shown}
                | {f"mean_{i}": float(r.values[:, i].mean()) for i in shown}
                for r in readings
            ],
        },
    )
    lines = [{"name": r.split, "x": list(_GRID), "y": _cumulative(r.values[:, 0])} for r in readings]
    picture = series_section(
        f"{method}{_PICTURE}",
        f"{method}: how far the gate opens",
        lines,
        x_label=f"opening of the gate ({names[0]})",
        y_label="share of prompts with at most this opening",
        caption="Prompts that should open the gate keep their line at the bottom until the right edge; all others "
        "should reach the top at the left edge.",
    )
    return [table, picture]


def gates_together(sections: Sequence[Section]) -> list[Section]:
    """Put the gates of several methods under one heading: one table with the method in each row, then the pictures.

    Methods whose gates did the same (they were fitted on the same data) share their rows and their picture.

    Args:
        sections: Of one report; those that are not from `gate_sections` are passed through.

    Returns:
        The others in their order, then the gates'.
    """
    ends = (_TABLE, _PICTURE)
    tables, pictures = ([one for one in sections if one.id.endswith(end)] for end in ends)
    if len(tables) < 2:
        return list(sections)
    others = [one for one in sections if not one.id.endswith(ends)]
    rows: list[dict[str, Any]] = []
    captions: list[str] = []
    columns: dict[str, Any] = {}
    for names, table in _alike(tables, _TABLE):
        rows += [{"method": names, **row} for row in table.data["rows"]]
        captions.append(f"{names}: {table.caption}")
        columns |= {column["key"]: column for column in table.data["columns"]}
    together = Section(
        id=f"gates{_TABLE}",
        title="Gates: on which prompts they open",
        type="table",
        caption=" ".join(captions),
        data={"columns": [{"key": "method", "label": "Method"}, *columns.values()], "rows": rows},
    )
    drawn = [
        replace(picture, title=f"Gates: how far they open ({names})")
        for names, picture in _alike(pictures, _PICTURE)
    ]
    return [*others, together, *drawn]


def _alike(sections: Sequence[Section], end: str) -> list[tuple[str, Section]]:
    """Return each different section with the names of the methods it belongs to."""
    ordered = sorted(sections, key=lambda one: repr(one.data))
    groups = [list(group) for _, group in groupby(ordered, key=lambda one: repr(one.data))]
    groups.sort(key=lambda group: sections.index(group[0]))
    return [(", ".join(one.id.removesuffix(end) for one in group), group[0]) for group in groups]


def _cumulative(values: npt.NDArray[np.float32]) -> list[float]:
    return [round(float((values <= x).mean()), 4) for x in _GRID]
