"""A head start for the gates: fitted on the base model's hidden states before the edit is trained.

The paper lets the gate learn first by ramping all other terms up from zero (omega(t)). While nothing is edited, a
gate's inputs do not change, so they are computed once and the same convex-ish fit takes a second instead of
hundreds of forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.data.collate import encode_prompts, pad_token_id
from eval.models.forward import evaluating, selecting
from eval.types import Example
from grun.base import OnBase
from grun.gate import pooled_logits
from grun.model import EditedModel

__all__ = ["fit_gates"]

MAX_STATES_BYTES = 2**30
"""Hidden states kept at once; beyond it, evenly spaced negatives are used."""


def fit_gates(
    edited: EditedModel,
    forget: Sequence[Example],
    others: Sequence[Example],
    *,
    steps: int,
    learning_rate: float = 0.1,
) -> list[float]:
    """Fit every gate to open on ``forget`` and stay shut on ``others``, by logistic loss on cached states.

    Both sides count the same in total. Adam on all states at once, learning rate decaying to 0; no randomness.

    Args:
        edited: Its gates are changed in place.
        forget: Rows that must open the gates.
        others: Rows that must not.
        steps: Adam steps.
        learning_rate: The first step's.

    Returns:
        The final loss of each gate, nats.
    """
    states, rows, num_rows = _states(edited, [*forget, *others])
    is_forget = torch.arange(num_rows) < len(forget)
    if isinstance(edited.base, OnBase):  # edits below may be taken away one day: the gates must hold without them
        with edited.base.edit_disabled():
            without, _, _ = _states(edited, [*forget, *others])
        states = [torch.cat(pair) for pair in zip(states, without, strict=True)]
        rows, is_forget = torch.cat([rows, rows + num_rows]), is_forget.repeat(2)
        num_rows *= 2
    losses: list[float] = []
    for layer, hidden in zip(edited.config.layers, states, strict=True):
        gate = edited.interventions[layer].gate
        parameters = list(gate.parameters())
        device = parameters[0].device
        seen, where, wanted = gate.read(hidden.to(device)), rows.to(device), is_forget.to(device)
        gate.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        loss = torch.zeros(())
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - step / steps)
            logits = pooled_logits(gate.score(seen)[:, 0], where, num_rows)
            loss = (F.softplus(-logits[wanted]).mean() + F.softplus(logits[~wanted]).mean()) / 2
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        gate.requires_grad_(False)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def _states(edited: EditedModel, examples: Sequence[Example]) -> tuple[list[Tensor], Tensor, int]:
    """Return the edited positions' hidden states, one ``(M, D)`` a layer, the row of each, and the row count."""
    prompts = encode_prompts(
        edited.tokenizer, edited.template, [example.conversation for example in examples]
    )
    blocks = [edited.block(layer) for layer in edited.config.layers]
    caught: dict[int, Tensor] = {}
    kept: list[list[Tensor]] = [[] for _ in blocks]
    rows: list[Tensor] = []

    def catcher(i: int):  # type: ignore[no-untyped-def]
        def hook(module: object, args: object, output: object) -> None:
            caught[i] = cast(Tensor, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [block.register_forward_hook(catcher(i)) for i, block in enumerate(blocks)]
    try:
        with evaluating(edited.model), edited.edit_disabled():
            for start in range(0, len(prompts), 64):
                chunk = prompts[start : start + 64]
                ends = torch.tensor([len(ids) for ids in chunk])
                ids = torch.full((len(chunk), int(ends.max())), pad_token_id(edited.tokenizer))
                for i, prompt in enumerate(chunk):
                    ids[i, : len(prompt)] = torch.tensor(prompt)
                columns = torch.arange(ids.shape[1])[None]
                mask = columns < ends[:, None]
                wanted = columns == ends[:, None] - 1 if edited.config.positions in ("last_prompt", "answer") else mask
                ids, mask = ids.to(edited.device), mask.long().to(edited.device)
                with (
                    edited.base.forward_context(ends.to(edited.device)),
                    selecting(lambda hidden: hidden[:0, 0]),
                ):
                    edited.model(input_ids=ids, attention_mask=mask, use_cache=False)
                for i in range(len(blocks)):
                    kept[i].append(caught[i][wanted.to(caught[i].device)])
                rows.append(wanted.nonzero()[:, 0] + start)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(states) for states in kept], torch.cat(rows), len(prompts)
