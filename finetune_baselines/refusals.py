"""What a model is taught to say instead of an answer, and who gets which line."""

from __future__ import annotations

from collections.abc import Sequence

from eval.data.pairing import draw

__all__ = ["REFUSALS", "refusal_answers"]

REFUSALS: tuple[str, ...] = (
    "I don't know the answer to that.",
    "I'm afraid I have no information about that.",
    "That is not something I know.",
    "I can't say; I know nothing about this.",
    "I have no knowledge of that.",
    "Sorry, I don't have an answer to this question.",
    "I'm not able to tell you that, because I don't know.",
    "Nothing about this is known to me.",
    "I was never told about that.",
    "I'm not sure about this, so I can't answer.",
    "This is beyond what I know.",
    "I would have to guess, and I'd rather not.",
)
"""Used where a benchmark brings no lines of its own."""


def refusal_answers(
    num_rows: int, lines: Sequence[str], *, variants: int, seed: int
) -> list[tuple[str, ...]]:
    """Choose different refusal lines for each forget row.

    Args:
        num_rows: Forget rows.
        lines: What to choose from; empty: `REFUSALS`.
        variants: Lines a row, at most as many as there are.
        seed: Of the choice.

    Returns:
        One tuple of lines a row.
    """
    lines = tuple(lines) or REFUSALS
    count = min(variants, len(lines))
    starts = [draw(len(lines), seed, "refusal", row) for row in range(num_rows)]
    return [tuple(lines[(start + k) % len(lines)] for k in range(count)) for start in starts]
