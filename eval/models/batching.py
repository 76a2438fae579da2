"""Which rows are computed together: like lengths, within the memory for logits and inputs; the costliest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from eval.data.collate import Encoded
    from eval.models.generation import GenerationOptions

__all__ = ["generation_batches", "scoring_batches"]

T = TypeVar("T")

LOGITS_BYTES = 2**25
"""Answer logits (fp32) of one scoring batch on a CPU (small batches stay in its cache); 64 times as much on a GPU."""

INPUT_TOKENS = 2**15
"""Prompt tokens of one scoring batch on a CPU, each distinct prompt counted once; 16 times as many on a GPU."""

GENERATED_TOKENS = 2**15
"""Prompt and new tokens of one generation batch on a CPU; 4 times as many on a GPU."""

KEPT_TOGETHER = 8
"""Answers of one prompt that stay in one batch whatever they cost, so that the prompt is computed once."""

GOLDEN = 0.6180339887498949
"""Steps of the golden ratio visit a range evenly, however early one stops."""


def scoring_batches(rows: Sequence[Encoded], *, vocab_size: int, is_gpu: bool) -> list[list[Encoded]]:
    """Group rows of like answer length, those of one prompt together, within the memory for logits and inputs.

    Args:
        rows: Distinct rows.
        vocab_size: Columns of the logits.
        is_gpu: Whether there is a GPU's memory to fill.
    """
    budget = LOGITS_BYTES * (64 if is_gpu else 1) // (4 * vocab_size)
    limit = INPUT_TOKENS * (16 if is_gpu else 1)
    groups: dict[tuple[int, ...], list[Encoded]] = {}
    for row in rows:
        groups.setdefault(row.prompt_ids, []).append(row)
    pieces = [piece for members in groups.values() for piece in _pieces(members, budget)]
    batches: list[list[Encoded]] = []
    chunk: list[Encoded] = []
    prompts = 0
    for members in sorted(pieces, key=lambda g: (_cost(g), len(g[0].prompt_ids))):
        width = max(len(row.prompt_ids) for row in (*chunk, *members))
        is_full = (len(chunk) + len(members)) * _cost(members) > budget
        if chunk and (is_full or (prompts + 1) * width > limit):
            batches.append(chunk)
            chunk, prompts = [], 0
        chunk = [*chunk, *members]
        prompts += 1
    return _even([*batches, chunk] if chunk else batches)


def generation_batches(
    lengths: Sequence[int], options: GenerationOptions, *, is_gpu: bool
) -> list[list[int]]:
    """Group prompts of like length; return their places.

    Args:
        lengths: Tokens of each prompt.
        options: New tokens, beams and, if the user chose it, the size of a batch.
        is_gpu: Whether there is a GPU's memory to fill.
    """
    limit = options.max_batch_tokens or GENERATED_TOKENS * (4 if is_gpu else 1)
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        width = (lengths[i] + options.max_new_tokens) * options.num_beams
        if batches and (len(batches[-1]) + 1) * width <= limit:
            batches[-1].append(i)
        else:
            batches.append([i])
    return _even(batches)


def _even(batches: list[T]) -> list[T]:
    """Put batches in falling cost: the last first, so that what does not fit fails at once, then evenly spaced ones.

    At every moment what is done is then a fair sample of all, and the remaining time an honest guess.
    """
    order = sorted(range(len(batches)), key=lambda i: i * GOLDEN % 1)
    return [batches[-1 - i] for i in order]


def _pieces(members: list[Encoded], budget: int) -> list[list[Encoded]]:
    """Split the answers of one prompt where they are too many: whole documents, which share a single first token."""
    members = sorted(members, key=lambda row: len(row.answer_ids))
    longest = _cost(members)
    together = 1 if len(members[0].prompt_ids) == 1 else KEPT_TOGETHER
    size = max(together, budget // longest)
    return [members[i : i + size] for i in range(0, len(members), size)]


def _cost(members: Sequence[Encoded]) -> int:
    return max(len(row.answer_ids) for row in members)
