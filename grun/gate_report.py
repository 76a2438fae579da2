"""The gate measured on prompts it was not fitted on, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eval.data.augment import PromptSource
from eval.report.gate_section import GateReadings, gate_sections
from eval.types import Example, UnlearningData
from grun.documents import with_prompts

if TYPE_CHECKING:
    from eval.report import Section
    from grun.model import EditedModel

__all__ = ["benchmark_prompts", "gate_report", "held_out_prompts"]

Prompts = Mapping[str, tuple[bool, Sequence[Example]]]
"""Kind of prompts to whether the gate should open on them, and the prompts."""
_MOST = 200
"""Prompts of a kind that are read at most."""


def held_out_prompts(data: UnlearningData, *, seed: int = 0) -> Prompts:
    """Return what can be asked with a method's own data: its rows, and both sides in wordings kept out of the fit."""
    forget, retain, background = (with_prompts(rows) for rows in (data.forget, data.retain, data.background))
    source = PromptSource(forget, [*retain, *background], seed=seed, held_out=True)
    count = min(_MOST, 2 * len(forget))
    return {
        "forget": (True, forget),
        "forget, unseen wordings": (True, source.opening(count, "report")),
        "retain": (False, retain),
        "background": (False, background),
        "others, unseen wordings": (False, source.shutting(count, "report")),
    }


def benchmark_prompts(splits: Mapping[str, Sequence[Example]]) -> Prompts:
    """Return the tested splits of a benchmark, and their paraphrased questions where it has them."""
    prompts: dict[str, tuple[bool, Sequence[Example]]] = {}
    for name, rows in splits.items():
        asked = [row for row in rows if row.text is None]
        prompts[name] = (name == "forget", asked)
        other = [row.paraphrased_question for row in asked]
        prompts[f"{name}, paraphrased"] = (
            name == "forget",
            [
                row.replace(question=q, messages=None)
                for row, q in zip(asked, other, strict=True)
                if q is not None and q != row.question
            ],
        )
    return {name: part for name, part in prompts.items() if part[1]}


def gate_report(edited: EditedModel, prompts: Prompts, *, method: str = "grun") -> list[Section]:
    """Read the gates on each kind of prompts and return a table and a picture (`eval.report.gate_section`).

    Args:
        edited: Whose gates.
        prompts: From `held_out_prompts` or `benchmark_prompts`, or any of that form.
        method: Name for titles.
    """
    readings = [
        GateReadings(split=name, should_open=opens, values=edited.gate(_spread(rows)))
        for name, (opens, rows) in prompts.items()
    ]
    return gate_sections(method, readings, edited.config.layers)


def _spread(rows: Sequence[Example]) -> Sequence[Example]:
    step = max(1, -(-len(rows) // _MOST))
    return rows[::step]
