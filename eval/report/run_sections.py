"""Builders of the sections about the runs themselves: what they cost, their settings, how far numbers compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eval.report.report import RunInfo, Section
from eval.report.table import CHANGES

__all__ = ["COMPARABILITY", "methods_section", "notes_section", "settings_section"]

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
            "label": "Evaluation s",
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
    kept = [
        c for c in columns if c["key"] == "method" or any(row[c["key"]] not in (None, "") for row in rows)
    ]
    return Section(
        id="methods",
        title="Methods and cost",
        type="table",
        caption="A filter suppresses what is said, an adapter edits hidden states, training changes weights.",
        data={"columns": kept, "rows": [{c["key"]: row[c["key"]] for c in kept} for row in rows]},
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
    kept = [
        c for c in columns if c["key"] == "method" or any(row[c["key"]] not in (None, "") for row in rows)
    ]
    return Section(
        id="settings",
        title="Settings",
        type="table",
        caption="What each run was started with, defaults included.",
        data={"columns": kept, "rows": [{c["key"]: row[c["key"]] for c in kept} for row in rows]},
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
