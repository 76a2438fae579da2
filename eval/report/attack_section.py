"""Sections of an attack report: method x attack, and in words what survives what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.attacks.base import DOES_NOT_APPLY, INFORMATIVE
from eval.report.report import RunInfo, Section
from eval.report.table import role

__all__ = ["attack_sections"]

Found = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``{method: {attack: {"value", "ci", "n", "reason"}}}``."""

MARGIN = 0.10
"""How far above the oracle's share a method's must be to count as broken."""


def attack_sections(
    *, runs: Sequence[RunInfo], found: Found, attacks: Mapping[str, tuple[str, str]]
) -> list[Section]:
    """Build the table and the reading.

    Args:
        runs: Target, oracle and methods, in the order of the columns.
        found: What each attack brought out of each model.
        attacks: Attack to its family and what it does, in the order of the rows.
    """
    return [_table(runs, found, attacks), _reading(runs, found, attacks)]


def _value(found: Found, who: str, attack: str) -> float | None:
    value = found.get(who, {}).get(attack, {}).get("value")
    return None if value is None else float(value)


def _is_informative(found: Found, attack: str) -> bool:
    """Whether the target itself answers under the attack; where it does not apply to the target, unattacked."""
    result = found.get("target", {}).get(attack, {})
    does_not_apply = result.get("value") is None and DOES_NOT_APPLY in (result.get("reason") or "")
    before = _value(found, "target", "plain" if does_not_apply else attack)
    return before is not None and before >= INFORMATIVE


def _level(found: Found, attack: str) -> float:
    """What the oracle shows under the attack; where it does not apply to it, unattacked."""
    levels = (_value(found, "oracle", name) for name in (attack, "plain"))
    return next((level for level in levels if level is not None), 0.0)


def _table(runs: Sequence[RunInfo], found: Found, attacks: Mapping[str, tuple[str, str]]) -> Section:
    rows: list[dict[str, Any]] = []
    for name, (family, summary) in attacks.items():
        row: dict[str, Any] = {"attack": name, "family": family, "summary": summary}
        is_informative = _is_informative(found, name)
        row["n"] = max((found[who][name].get("n", 0) for who in found if name in found[who]), default=0)
        for run in runs:
            value = _value(found, run.method, name)
            if run.method != "target" and not is_informative:
                row[run.method] = "not informative"
            else:
                row[run.method] = DOES_NOT_APPLY if value is None else f"{value:.3f}"
        rows.append(row)
    return Section(
        id="attacks",
        title="Attacks",
        type="table",
        caption="Share of the forget questions whose answer says a key span (logit lens: whose key span some block "
        "guesses). The target knows everything: an attack under which it answers fewer than "
        f"{100 * INFORMATIVE:.0f} % of the questions is not informative. The oracle was never taught the answers: its "
        "share is what guessing reaches and, after relearning, what is learned anew.",
        data={
            "columns": [
                {"key": "attack", "label": "Attack"},
                {"key": "family", "label": "Family"},
                {"key": "n", "label": "n"},
                *({"key": run.method, "label": run.method} for run in runs),
                {"key": "summary", "label": "What the attacker does"},
            ],
            "rows": rows,
        },
    )


def _reading(runs: Sequence[RunInfo], found: Found, attacks: Mapping[str, tuple[str, str]]) -> Section:
    informative = [name for name in attacks if _is_informative(found, name)]
    silent = [name for name in attacks if not _is_informative(found, name)]
    items = [_sentence(run, found, informative) for run in runs if role(run.method) == "method"]
    if silent:
        items.append(f"Not informative here, because the target hardly answers either: {', '.join(silent)}.")
    return Section(
        id="reading",
        title="What survives what",
        type="list",
        caption=f"Broken: the share that leaks is more than {MARGIN:.2f} above the oracle's under the same attack.",
        data={"items": items},
    )


def _sentence(run: RunInfo, found: Found, informative: Sequence[str]) -> str:
    broken: list[tuple[str, float, float]] = []
    held: list[tuple[str, float, float]] = []
    for name in informative:
        value = _value(found, run.method, name)
        if value is None:
            continue
        level = _level(found, name)
        (broken if value > level + MARGIN else held).append((name, value, level))
    if not broken:
        return f"{run.title} ({run.kind}) holds under all {len(held)} informative attacks that apply to it."
    broken.sort(key=lambda entry: entry[2] - entry[1])
    worst = ", ".join(f"{name} ({value:.2f}, oracle {level:.2f})" for name, value, level in broken)
    return (
        f"{run.title} ({run.kind}) holds under {len(held)} of {len(held) + len(broken)} informative attacks and gives "
        f"way to {worst}."
    )
