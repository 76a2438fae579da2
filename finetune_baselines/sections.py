"""What a report says about a run beside its numbers: who wrote its answers, where its ranks went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from eval.report import Section
from finetune_baselines.written_answers import Kind, Written

__all__ = ["SECTIONS", "ranks_section", "written_section"]

SECTIONS = "sections.json"
"""File in a method's folder: sections that a report takes over as they are."""


def written_section(kind: Kind, rows: Sequence[Written], method: str) -> Section:
    """Tabulate, level by level, what was asked for, what was kept, and how like the gold answers it is."""
    depth = max(len(row.asked or row.texts) for row in rows)
    table: list[dict[str, Any]] = []
    for level in range(depth):
        asked = sum(row.asked[level] for row in rows if level < len(row.asked))
        kept = sum(level < len(row.texts) for row in rows)
        alike = [row.similarity[level] for row in rows if level < len(row.similarity)]
        table.append(
            {
                "level": level + 1,
                "asked": asked or None,
                "kept": kept,
                "rate": kept / asked if asked else None,
                "similarity": fmean(alike) if alike else None,
            }
        )
    reasons = Counter(reason for row in rows for reason in row.rejected)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    writers = ", ".join(sorted({row.writer or "a file without a writer's name" for row in rows if row.texts}))
    what = "gradual negatives" if kind == "negatives" else "alternate answers"
    return Section(
        id=f"{method}-{kind}",
        title=f"{method}: {what}",
        type="table",
        caption=f"Written by {writers} for {sum(bool(row.texts) for row in rows)} of {len(rows)} forget rows; they "
        f"stand in {kind}.jsonl." + (f" Not kept: {why}." if why else ""),
        data={
            "columns": [
                {"key": "level", "label": "Level" if kind == "negatives" else "Answer"},
                {"key": "asked", "label": "Asked for"},
                {"key": "kept", "label": "Kept"},
                {"key": "rate", "label": "Acceptance", "digits": 2},
                {"key": "similarity", "label": "Similarity to gold", "digits": 2},
            ],
            "rows": table,
        },
    )


def ranks_section(ranks: Mapping[str, int], start: int, method: str) -> Section:
    """Tabulate AdaLoRA's final ranks: a row for each kind of matrix, a column for each block.

    Args:
        ranks: Full name of a matrix to its rank.
        start: The rank they all began with.
        method: Of the run.
    """
    blocks: dict[str, dict[str, int]] = {}
    for name, rank in ranks.items():
        number = next((part for part in name.split(".") if part.isdigit()), "-")
        blocks.setdefault(name.rpartition(".")[2], {})[number] = rank
    numbers = sorted({number for row in blocks.values() for number in row}, key=lambda n: (len(n), n))
    rows = [
        {"matrix": kind, **{f"b{n}": row.get(n) for n in numbers}, "mean": fmean(row.values())}
        for kind, row in blocks.items()
    ]
    return Section(
        id=f"{method}-ranks",
        title=f"{method}: ranks",
        type="table",
        caption=f"AdaLoRA's rank of each adapted matrix at the end; all began with {start}, the mean is now "
        f"{fmean(ranks.values()):.1f}.",
        data={
            "columns": [
                {"key": "matrix", "label": "Matrix"},
                *({"key": f"b{n}", "label": f"Block {n}"} for n in numbers),
                {"key": "mean", "label": "Mean", "digits": 1},
            ],
            "rows": rows,
        },
    )
