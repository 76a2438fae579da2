"""One forward pass with logits only where they are wanted, and prompts that are computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from eval.types import Batch

__all__ = ["answer_logits", "evaluating", "install_selector", "selecting", "shared_prompt_logits"]

Select = Callable[[Tensor], Tensor]
_SELECT: ContextVar[Select | None] = ContextVar("select", default=None)
_INSTALLED = "_unlearn_selects_positions"

ANSWER_PARTS = 4
"""Passes over the answers of one batch: more of them pad less and launch more."""


def install_selector(model: Any) -> None:
    """Let `selecting` choose which hidden states reach the output embedding of ``model``.

    The hook is permanent and does nothing outside `selecting`; it makes the logits ``(N, V)`` instead of
    ``(B, T, V)`` in every architecture, with whatever the model does to logits afterwards still applied.
    """
    head = model.get_output_embeddings()
    if getattr(head, _INSTALLED, False):
        return

    def pre_hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        select = _SELECT.get()
        return None if select is None else (select(args[0]), *args[1:])

    head.register_forward_pre_hook(pre_hook)
    setattr(head, _INSTALLED, True)


@contextmanager
def selecting(select: Select) -> Iterator[None]:
    """Map hidden states ``(B, T, D)`` to the ``(N, D)`` that the output embedding sees, inside the block."""
    token = _SELECT.set(select)
    try:
        yield
    finally:
        _SELECT.reset(token)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off and gradients off inside the block; the training flags come back afterwards."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def answer_logits(module: nn.Module, batch: Batch, context: AbstractContextManager[Any]) -> Tensor:
    """Run ``module`` on whole rows; return the logits that predict answer tokens, shape ``(N, V)``."""
    mask = batch.predicting
    with context, selecting(lambda hidden: hidden[mask.to(hidden.device)]):
        out = module(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits: Tensor = out.logits
    return logits


def shared_prompt_logits(
    model: Any, batch: Batch, context: Callable[[Tensor], AbstractContextManager[Any]]
) -> Tensor | None:
    """Like `answer_logits`, but each distinct prompt of ``batch.prompt_group`` runs once (no gradients).

    Prompts run first and leave keys and values behind; answers, sorted by length into a few parts with little
    padding, run on copies of them. The output embedding sees all answer positions at once.

    Args:
        model: The causal model.
        batch: Rows with ``prompt_group`` set.
        context: Called with ``prompt_end`` before each of the two passes.

    Returns:
        Logits ``(N, V)``, or ``None`` where the model's cache cannot be copied row by row.
    """
    assert batch.prompt_group is not None
    group = batch.prompt_group
    num_prompts = int(group.max()) + 1
    device = batch.input_ids.device
    first = torch.full((num_prompts,), len(batch), device=device).scatter_reduce(
        0, group, torch.arange(len(batch), device=device), "amin"
    )
    ends = batch.prompt_end[first]
    width = int(ends.max())
    columns = torch.arange(width, device=device)
    prompt_mask = batch.attention_mask[first, :width] * (columns[None] < ends[:, None])
    last_hidden: list[Tensor] = []

    def keep_last(hidden: Tensor) -> Tensor:
        rows = torch.arange(num_prompts, device=hidden.device)
        last_hidden.append(hidden[rows, ends.to(hidden.device) - 1])
        return hidden[:0, 0]

    with context(ends), selecting(keep_last):
        out = model(input_ids=batch.input_ids[first, :width], attention_mask=prompt_mask, use_cache=True)
    cache = out.past_key_values
    if not hasattr(cache, "batch_select_indices") or not hasattr(cache, "get_seq_length"):
        return None

    lengths = (batch.labels != -100).sum(1)
    starts = lengths.cumsum(0) - lengths
    hidden = last_hidden[0].new_empty((int(lengths.sum()), last_hidden[0].shape[-1]))
    hidden[starts.to(hidden.device)] = last_hidden[0][group.to(hidden.device)]
    parts = lengths.argsort().chunk(ANSWER_PARTS)
    for i, rows in enumerate(parts):
        steps = torch.arange(max(int(lengths[rows].max()) - 1, 1), device=device)
        columns = (batch.prompt_end[rows, None] + steps[None]).clamp(max=batch.input_ids.shape[1] - 1)
        predicts = steps[None] < (lengths[rows] - 1)[:, None]
        answer_mask = predicts.to(batch.attention_mask.dtype) * batch.attention_mask[rows].gather(1, columns)
        places = (starts[rows, None] + 1 + steps[None])[predicts]
        is_last = i == len(parts) - 1
        part_cache = cache if is_last else _to_select_from(cache)
        part_cache.batch_select_indices(group[rows])

        def collect(
            new: Tensor, places: Tensor = places, predicts: Tensor = predicts, is_last: bool = is_last
        ) -> Tensor:
            hidden[places.to(new.device)] = new[predicts.to(new.device)]
            return hidden if is_last else new[:0, 0]

        with context(batch.prompt_end[rows]), selecting(collect):
            out = model(
                input_ids=batch.input_ids[rows].gather(1, columns),
                attention_mask=torch.cat([prompt_mask[group[rows]], answer_mask], dim=1),
                position_ids=batch.prompt_end[rows, None] + steps[None],
                past_key_values=part_cache,
                use_cache=True,
            )
    logits: Tensor = out.logits
    return logits


def _to_select_from(cache: Any) -> Any:
    """Return a copy of a cache of which rows are selected next: simple layers share their tensors until then."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = getattr(cache, "layers", [None])
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return copy.deepcopy(cache)
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in layers]
    return copied
