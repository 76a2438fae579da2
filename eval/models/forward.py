"""One forward pass with logits only where they are wanted, and prompts that are computed once."""

from __future__ import annotations

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

    Prompts run first and leave keys and values behind; answers then run on copies of them.

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
    cache.batch_select_indices(group)

    lengths = (batch.labels != -100).sum(1)
    answer_width = int(lengths.max()) - 1
    steps = torch.arange(max(answer_width, 1), device=device)
    columns = (batch.prompt_end[:, None] + steps[None]).clamp(max=batch.input_ids.shape[1] - 1)
    answers = batch.input_ids.gather(1, columns)
    predicts = steps[None] < (lengths - 1)[:, None]
    answer_mask = predicts.to(batch.attention_mask.dtype) * batch.attention_mask.gather(1, columns)

    def first_then_rest(hidden: Tensor) -> Tensor:
        start = last_hidden[0][group.to(hidden.device)].to(hidden.device)
        rows = torch.cat([start[:, None], hidden], dim=1)
        wanted = torch.cat([torch.ones_like(predicts[:, :1]), predicts], dim=1)
        return rows[wanted.to(hidden.device)]

    with context(batch.prompt_end), selecting(first_then_rest):
        out = model(
            input_ids=answers,
            attention_mask=torch.cat([prompt_mask[group], answer_mask], dim=1),
            position_ids=batch.prompt_end[:, None] + steps[None],
            past_key_values=cache,
            use_cache=True,
        )
    logits: Tensor = out.logits
    return logits
