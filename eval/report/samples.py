"""A few generated answers to read: numbers hide gibberish, refusals and answers that are right in other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PER_SPLIT", "samples_page"]

PER_SPLIT = 5
"""Samples shown of each split."""
MAX_CHARACTERS = 600


def samples_page(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown with up to `PER_SPLIT` answers of each split, spread evenly over it.

    Args:
        samples: Rows of ``samples.jsonl``: split, prompt (``input``), ``ground_truth``, ``generation``, and the spans
            that ``leaked`` where they were looked for.
    """
    lines = ["# Samples", "", "Chosen by position, not by score; all of them are in `samples.jsonl`."]
    for split in dict.fromkeys(str(sample["split"]) for sample in samples):
        rows = [sample for sample in samples if sample["split"] == split]
        step = max(1, len(rows) // PER_SPLIT)
        lines += ["", f"## {split} ({len(rows)})"]
        for sample in rows[::step][:PER_SPLIT]:
            leaked = ", ".join(sample.get("leaked") or ())
            lines += [
                "",
                f"**{sample['id']}**" + (f" (leaked: {leaked})" if leaked else ""),
                *_quoted("asked", sample["input"]),
                *_quoted("true answer", sample["ground_truth"]),
                *_quoted("model", sample["generation"] or "(nothing)"),
            ]
    return "\n".join(lines) + "\n"


def _quoted(label: str, text: str) -> list[str]:
    """Return a labelled code block; a long text loses its beginning, since prompts end with what is asked."""
    shown = text if len(text) <= MAX_CHARACTERS else f"[...] {text[-MAX_CHARACTERS:]}"
    fence = "````" if "```" in shown else "```"
    return ["", f"{label}:", "", fence, shown, fence]
