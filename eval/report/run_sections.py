"""Builders of the sections about the runs: what they reach, what they cost, their settings, what compares."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from eval.report.report import RunInfo, Section
from eval.report.table import CHANGES, role
from eval.report.yardsticks import Results, forgotten, kept

__all__ = [
    "COMPARABILITY",
    "QUALITY_PASSED",
    "UTILITY_KEPT",
    "goals_section",
    "methods_section",
    "notes_section",
    "settings_section",
]

UTILITY_KEPT = 0.95
"""Share of the target's model utility below which a method has damaged the model (drawn as a guide)."""
QUALITY_PASSED = 0.05
"""Forget quality (a p-value) above which truth ratios cannot be told from the oracle's."""
FORGET_MARGIN = 0.10
"""How far above the oracle's forget ROUGE-L (or its like) a method may stay and count as having forgotten."""
LEAK_MARGIN = 0.02
"""Share of answers that may leak beyond what the oracle, which can only guess, says by chance."""

COMPARABILITY = (
    "A filter suppresses: the model still knows what it is kept from saying. An adapter edits hidden states "
    "and can be switched off. Training changes weights. Equal numbers do not make these the same.",
    "Forget quality compares likelihoods with the oracle's. A filter sets the likelihood of banned words "
    "itself, so its forget quality is not comparable.",
    "A p-value depends on the number of questions: compare forget quality only between runs on the same "
    "forget set, and read D beside it. At the floor of the test it says “far away”, not how far.",
    "Low forget ROUGE-L alone is no success: gibberish scores low too. Read it beside fluency and model "
    "utility, and against the oracle's level, which guessing reaches.",
)
"""Standing notes under every comparison."""


def goals_section(runs: Sequence[RunInfo], results: Results) -> Section | None:
    """Say for each method which of the usual goals it reaches; a goal without a yardstick is left out."""
    goals: list[tuple[str, str, Callable[[float], bool]]] = []
    keeps, forgets = kept(results), forgotten(results)
    level = _level(results, "target", keeps.metric) if keeps else None
    if keeps and level is not None:
        label = f"keeps {100 * UTILITY_KEPT:.0f} % of the target's {keeps.label.removeprefix('model ')}"
        goals.append((keeps.metric, label, partial(operator.le, UTILITY_KEPT * level)))
    guess = _level(results, "oracle", forgets.metric) if forgets else None
    if forgets and guess is not None:
        label = f"{forgets.label} at most oracle + {FORGET_MARGIN:.2f}"
        goals.append((forgets.metric, label, partial(operator.ge, guess + FORGET_MARGIN)))
    leaks = _level(results, "oracle", "leak_rate")
    if leaks is not None:
        label = f"leaks at most oracle + {LEAK_MARGIN:.2f}"
        goals.append(("leak_rate", label, partial(operator.ge, leaks + LEAK_MARGIN)))
    goals.append(
        ("forget_quality", f"forget quality above {QUALITY_PASSED}", partial(operator.lt, QUALITY_PASSED))
    )
    rows: list[dict[str, Any]] = []
    for run in runs:
        if role(run.method) == "method":
            row = {
                key: _reached(results.get(run.method, {}).get(key, {}), is_met) for key, _, is_met in goals
            }
            rows.append({"method": run.title, **row})
    shown = [(key, label) for key, label, _ in goals if any(isinstance(row[key], bool) for row in rows)]
    if not shown:
        return None
    return Section(
        id="goals",
        title="Goals reached",
        type="table",
        caption="A first reading, not a verdict: the margins are conventions, and a method may reach a goal by "
        "suppressing, by editing or by training.",
        data={
            "columns": [
                {"key": "method", "label": "Method"},
                *({"key": k, "label": text} for k, text in shown),
            ],
            "rows": [{"method": row["method"]} | {key: row[key] for key, _ in shown} for row in rows],
        },
    )


def _level(results: Results, who: str, metric: str) -> float | None:
    value = results.get(who, {}).get(metric, {}).get("value")
    return None if value is None else float(value)


def _reached(result: Mapping[str, Any], is_met: Callable[[float], bool]) -> bool | str | None:
    value, reason = result.get("value"), result.get("reason") or ""
    if "not comparable" in reason.lower():
        return "not comparable"
    return None if value is None else is_met(value)


def methods_section(runs: Sequence[RunInfo]) -> Section | None:
    """Tabulate what each method changes and what it costs."""
    if not runs:
        return None
    columns: list[dict[str, Any]] = [
        {"key": "method", "label": "Method"},
        {"key": "changes", "label": "Changes"},
        {"key": "seconds", "label": "Seconds", "digits": 1, "explain": "Time to unlearn."},
        {
            "key": "eval_seconds",
            "label": "Evaluation seconds",
            "digits": 1,
            "explain": "Time to score and generate.",
        },
        {"key": "trainable_parameters", "label": "Trained parameters"},
        {"key": "peak_memory_mb", "label": "Peak memory, MiB", "digits": 0},
        {"key": "summary", "label": "What it does"},
        {"key": "paper", "label": "Paper"},
    ]
    rows = [
        {
            "method": run.title,
            "changes": CHANGES.get(run.kind, run.kind),
            "seconds": None if run.seconds is None else round(run.seconds, 1),
            "eval_seconds": None if run.eval_seconds is None else round(run.eval_seconds, 1),
            "trainable_parameters": run.trainable_parameters,
            "peak_memory_mb": None if run.peak_memory_mb is None else round(run.peak_memory_mb),
            "summary": run.summary,
            "paper": run.paper,
        }
        for run in runs
    ]
    shown = [
        c for c in columns if c["key"] == "method" or any(row[c["key"]] not in (None, "") for row in rows)
    ]
    return Section(
        id="methods",
        title="Methods and cost",
        type="table",
        caption="A filter suppresses what is said, an adapter edits hidden states, training changes weights.",
        data={"columns": shown, "rows": [{c["key"]: row[c["key"]] for c in shown} for row in rows]},
    )


def settings_section(runs: Sequence[RunInfo]) -> Section | None:
    """Tabulate each run's seed and settings, as they were resolved."""
    rows = []
    for run in runs:
        settings = ", ".join(f"{key}={_setting(value)}" for key, value in sorted(run.settings.items()))
        notes = " ".join(run.notes)
        if settings or notes or run.seed is not None:
            rows.append({"method": run.title, "seed": run.seed, "settings": settings, "notes": notes})
    if not rows:
        return None
    columns = [
        {"key": "method", "label": "Method"},
        {"key": "seed", "label": "Seed"},
        {"key": "settings", "label": "Settings", "style": "code"},
        {"key": "notes", "label": "Notes"},
    ]
    shown = [
        c for c in columns if c["key"] == "method" or any(row[c["key"]] not in (None, "") for row in rows)
    ]
    return Section(
        id="settings",
        title="Settings",
        type="table",
        caption="What each run was started with, defaults included.",
        data={"columns": shown, "rows": [{c["key"]: row[c["key"]] for c in shown} for row in rows]},
    )


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def notes_section(notes: Sequence[str]) -> Section | None:
    """List what a reader of the numbers must know."""
    if not notes:
        return None
    return Section(
        id="comparability",
        title="Comparability",
        type="list",
        data={"items": list(notes)},
    )
