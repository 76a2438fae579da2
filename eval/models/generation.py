"""Greedy decoding whose finished rows leave the batch; everything else goes to Hugging Face's ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from eval.errors import ConfigError
from eval.models.forward import selecting

__all__ = ["Generation", "GenerationOptions", "greedy"]

COMPACT_SHARE = 0.125
"""Share of the batch that must have finished before its rows are dropped (dropping copies the cache)."""


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How text is generated.

    Raises:
        ConfigError: If a value is out of range.
    """

    max_new_tokens: int = 200
    """At least 1."""
    do_sample: bool = False
    """Sample from the distribution instead of taking the most likely token."""
    temperature: float = 1.0
    """Only with ``do_sample``; above 0."""
    top_p: float = 1.0
    """Only with ``do_sample``; in (0, 1]."""
    num_beams: int = 1
    """At least 1."""
    seed: int = 0
    """Of the sampling; the global generator is left as it was."""
    max_batch_tokens: int | None = None
    """Prompt and new tokens a batch may hold at most; ``None``: chosen from the device and the vocabulary."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
        if self.temperature <= 0:
            raise ConfigError(
                f"temperature is {self.temperature}; it must be above 0 (greedy is do_sample=False)."
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie in (0, 1].")
        if self.num_beams < 1:
            raise ConfigError(f"num_beams is {self.num_beams}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What a model wrote."""

    text: str
    """Special tokens skipped, stripped."""
    token_ids: tuple[int, ...] = ()
    """Generated ids without the end token."""
    is_finished: bool = True
    """Whether the model ended by itself rather than at ``max_new_tokens``."""
    masked_steps: int = 0
    """Decoding steps at which a filter took away the model's first choice."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Generation:
        """Read the fields from JSON; others are ignored."""
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**known | {"token_ids": tuple(values["token_ids"])})


def greedy(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    processors: Sequence[Any] = (),
    context: Callable[[Tensor], AbstractContextManager[Any]],
) -> list[list[int]]:
    """Continue each left-padded prompt greedily; a row that has ended leaves the batch.

    Args:
        model: A causal model with a key-value cache.
        input_ids: Shape ``(B, T)``.
        attention_mask: Shape ``(B, T)``.
        max_new_tokens: Upper limit for each row.
        eos_ids: Ids that end a row; they are not returned.
        processors: Logits processors. One that keeps data for each row has ``select(rows)``.
        context: Entered around every forward, called with ``prompt_end`` of the rows in it.

    Returns:
        New token ids of each row, without the end token; a row of full length did not end by itself.
    """
    num_rows, prompt_length = input_ids.shape
    done: list[list[int]] = [[] for _ in range(num_rows)]
    alive = list(range(num_rows))
    processors = list(processors)
    ended = torch.zeros(num_rows, dtype=torch.bool, device=input_ids.device)
    eos = torch.tensor(list(eos_ids), device=input_ids.device)
    sequences, tokens, cache = input_ids, input_ids, None
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    for step in range(max_new_tokens):
        ends = torch.full((len(alive),), prompt_length, device=input_ids.device)
        with context(ends), selecting(lambda hidden: hidden[:, -1]):
            out = model(
                input_ids=tokens,
                attention_mask=attention_mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        cache, scores = out.past_key_values, out.logits.float()
        for processor in processors:
            scores = processor(sequences, scores)
        tokens = scores.argmax(-1, keepdim=True)
        sequences = torch.cat([sequences, tokens], dim=1)
        ended = ended | torch.isin(tokens[:, 0], eos)
        num_ended = int(ended.sum())
        is_last = step == max_new_tokens - 1
        if is_last or num_ended == len(alive) or num_ended >= COMPACT_SHARE * len(alive):
            keep = [i for i, is_done in enumerate(ended.tolist()) if not is_done]
            for i, row in enumerate(alive):
                if is_last or ended[i]:
                    done[row] = sequences[i, prompt_length:].tolist()
            if is_last or not keep:
                break
            if len(keep) < len(alive):
                index = torch.tensor(keep, device=input_ids.device)
                cache.batch_select_indices(index)
                sequences, tokens, ended = sequences[index], tokens[index], ended[index]
                attention_mask, positions = attention_mask[index], positions[index]
                alive = [alive[i] for i in keep]
                processors = [p.select(keep) if hasattr(p, "select") else p for p in processors]
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones((len(alive), 1))], dim=1)
        positions = positions[:, -1:] + 1
    stop = set(eos_ids)
    return [_until(row, stop) for row in done]


def _until(tokens: list[int], stop: set[int]) -> list[int]:
    for i, token in enumerate(tokens):
        if token in stop:
            return tokens[:i]
    return tokens
