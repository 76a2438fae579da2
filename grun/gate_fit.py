"""A head start for the gates: fitted on the base model's hidden states before the edit is trained.

The paper lets the gate learn first by ramping all other terms up from zero (omega(t)). While nothing is edited, a
gate's inputs do not change, so they are computed once and the fit takes seconds instead of hundreds of forwards.
Every row meets the gates in other wordings than the benchmark's own as well (`eval.data.augment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.artifacts import fingerprint
from eval.data.augment import PromptSource
from eval.data.collate import encode_prompts, pad_token_id
from eval.models.forward import evaluating, selecting
from eval.types import Example
from grun.base import OnBase
from grun.gate import WINDOW, FollowingGate, Gate, PhraseGate, pooled_logits
from grun.model import EditedModel

__all__ = ["fit_gates", "forget_fits"]

MAX_STATES_BYTES = 2**30
"""Hidden states kept at once, about; beyond it, fewer drawn prompts are used."""

MAX_DRAWN = 2000
"""Drawn prompts that must open the gates; twice as many must not."""

MAX_FITTED = 4
_FITTED: dict[str, tuple[dict[str, Tensor], list[float]]] = {}
"""Phrase gates fitted lately in this process: a comparison of several losses on one model fits once."""

WEIGHT_DECAY = 0.3
"""Of phrase gates."""

BATCH = 64
"""Phrase gates: opening prompts in a step, beside twice as many others."""


def fit_gates(
    edited: EditedModel,
    forget: Sequence[Example],
    others: Sequence[Example],
    *,
    steps: int,
    learning_rate: float = 0.1,
    variants: int = 0,
    seed: int = 0,
) -> list[float]:
    """Fit every gate to open on ``forget`` and stay shut on ``others``, by logistic loss on cached states.

    Both sides count the same in total. Adam, learning rate decaying to 0; on all states at once, or for phrase
    gates in random batches with a tenth of the learning rate and weight decay.

    Args:
        edited: Its gates are changed in place.
        forget: Rows that must open the gates.
        others: Rows that must not.
        steps: Adam steps.
        learning_rate: The first step's.
        variants: Prompts drawn for each forget row in addition, and twice as many innocent ones.
        seed: Of what is drawn.

    Returns:
        The final loss of each gate, nats.
    """
    key = _key(edited, forget, others, steps, learning_rate, variants, seed)
    first = edited.interventions[edited.config.layers[0]].gate
    if key in _FITTED:
        known, nats = _FITTED[key]
        first.load_state_dict(known)
        return list(nats)
    opening, shutting = _drawn(edited, forget, others, variants, seed)
    prompts = [*forget, *opening, *others, *shutting]
    num_opening = len(forget) + len(opening)
    states = _states(edited, prompts)
    if isinstance(
        edited.base, OnBase
    ):  # edits below may be taken away one day: the gates must hold without them
        with edited.base.edit_disabled():
            without = _states(edited, prompts)
        states = [both.joined(alone) for both, alone in zip(states, without, strict=True)]
    losses: list[float] = []
    for layer, kept in zip(edited.config.layers, states, strict=True):
        gate = edited.interventions[layer].gate
        if isinstance(gate, FollowingGate):
            continue
        gate.requires_grad_(True)
        wanted = torch.arange(kept.num_rows) % len(prompts) < num_opening
        if isinstance(gate, PhraseGate):
            loss = _fit_phrases(gate, kept, wanted, steps, learning_rate / 10, seed)
        else:
            loss = _fit_tokens(gate, kept, wanted, steps, learning_rate)
        gate.requires_grad_(False)
        gate.zero_grad(set_to_none=True)
        losses.append(loss)
    if key is not None:
        while len(_FITTED) >= MAX_FITTED:
            _FITTED.pop(next(iter(_FITTED)))
        _FITTED[key] = ({name: value.cpu().clone() for name, value in first.state_dict().items()}, losses)
    return losses


def forget_fits() -> None:
    """Let the next fit train anew, also where an equal one was made in this process."""
    _FITTED.clear()


def _key(edited: EditedModel, *parts: object) -> str | None:
    """Name everything a phrase gate's fit depends on; ``None`` where it is not kept."""
    config = edited.config
    if config.gate != "phrase" or isinstance(edited.base, OnBase):
        return None
    gate = (config.layers[0], config.gate_input, edited.identity, edited.template.name)
    return fingerprint([*gate, *parts])


def _drawn(
    edited: EditedModel, forget: Sequence[Example], others: Sequence[Example], variants: int, seed: int
) -> tuple[list[Example], list[Example]]:
    if not variants or not others:
        return [], []
    words = sum(len(row.conversation[-1].content.split()) for row in forget) / len(forget)
    row_bytes = 8 * words * edited.config.hidden_size * len(edited.config.layers)  # two tokens a word, fp32
    limit = MAX_DRAWN if edited.config.gate != "phrase" else MAX_STATES_BYTES / row_bytes / 3
    count = int(min(variants * len(forget), MAX_DRAWN, limit))
    source = PromptSource(forget, others, seed=seed)
    return source.opening(count, "fit"), source.shutting(2 * count, "fit")


def _logistic(logits: Tensor, wanted: Tensor) -> Tensor:
    return (F.softplus(-logits[wanted]).mean() + F.softplus(logits[~wanted]).mean()) / 2


def _decay(optimizer: torch.optim.Optimizer, learning_rate: float, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * (1 - step / steps)


def _fit_tokens(gate: Gate, states: _States, wanted: Tensor, steps: int, learning_rate: float) -> float:
    device = next(gate.parameters()).device
    seen, rows, wanted = gate.read(states.hidden.to(device)), states.rows.to(device), wanted.to(device)
    optimizer = torch.optim.Adam(gate.parameters(), lr=learning_rate)
    loss = torch.zeros(())
    for step in range(steps):
        _decay(optimizer, learning_rate, step, steps)
        loss = _logistic(pooled_logits(gate.score(seen)[:, 0], rows, states.num_rows), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(loss.detach())


def _fit_phrases(
    gate: PhraseGate, states: _States, wanted: Tensor, steps: int, learning_rate: float, seed: int
) -> float:
    device = gate.detectors.device
    generator = torch.Generator().manual_seed(seed)
    width = gate.detectors.shape[1] // WINDOW
    gate.load_state_dict(
        PhraseGate(width, gate.reads, generator).state_dict()
    )  # whatever was drawn before it
    optimizer = torch.optim.AdamW(gate.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
    sides = [wanted.nonzero()[:, 0], (~wanted).nonzero()[:, 0]]
    counts = [BATCH, 2 * BATCH]
    losses: list[float] = []
    for step in range(steps):
        _decay(optimizer, learning_rate, step, steps)
        chosen = [
            side[torch.randint(len(side), (count,), generator=generator)]
            for side, count in zip(sides, counts, strict=True)
        ]
        hidden, mask = states.padded(torch.cat(chosen))
        logits = gate.decide(gate.scan(hidden.to(device), mask.to(device)))
        loss = _logistic(logits, torch.arange(len(logits), device=device) < len(chosen[0]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    last = losses[-10:]
    return sum(last) / max(len(last), 1)


class _States:
    """One block's hidden states at the positions its gate reads, row after row.

    Args:
        hidden: Shape ``(M, D)``.
        rows: Row of each, ascending, shape ``(M,)``.
        num_rows: Rows.
    """

    def __init__(self, hidden: Tensor, rows: Tensor, num_rows: int) -> None:
        self.hidden, self.rows, self.num_rows = hidden, rows, num_rows
        self._lengths = rows.bincount(minlength=num_rows)
        self._starts = self._lengths.cumsum(0) - self._lengths

    def joined(self, other: _States) -> _States:
        """Return these rows followed by the other's."""
        rows = torch.cat([self.rows, other.rows + self.num_rows])
        return _States(torch.cat([self.hidden, other.hidden]), rows, self.num_rows + other.num_rows)

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows' states ``(B, T, D)`` and which of them are real, bool, ``(B, T)``."""
        lengths = self._lengths[rows]
        columns = torch.arange(int(lengths.max()))[None]
        mask = columns < lengths[:, None]
        places = (self._starts[rows, None] + columns).clamp(max=len(self.hidden) - 1)
        return self.hidden[places.to(self.hidden.device)], mask


@contextmanager
def _catching(edited: EditedModel) -> Iterator[dict[int, Tensor]]:
    """Yield a dictionary that holds each edited block's last output, by the block's place among them."""
    caught: dict[int, Tensor] = {}

    def catcher(i: int):  # type: ignore[no-untyped-def]
        def hook(module: object, args: object, output: object) -> None:
            caught[i] = cast(Tensor, output[0] if isinstance(output, tuple) else output)

        return hook

    blocks = [edited.block(layer) for layer in edited.config.layers]
    handles = [block.register_forward_hook(catcher(i)) for i, block in enumerate(blocks)]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _states(edited: EditedModel, examples: Sequence[Example]) -> list[_States]:
    """Return what the gate of each edited block reads of each prompt."""
    prompts = encode_prompts(
        edited.tokenizer, edited.template, [example.conversation for example in examples]
    )
    config = edited.config
    reads_last = config.positions == "last_prompt" or (
        config.positions == "answer" and config.gate != "phrase"
    )
    num_read = 1 if config.gate == "phrase" else len(config.layers)  # the other gates follow the first
    kept: list[list[Tensor]] = [[] for _ in range(num_read)]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rows: list[Tensor] = []
    with evaluating(edited.model), edited.edit_disabled(), _catching(edited) as caught:
        for start in range(0, len(prompts), 64):
            chunk = order[start : start + 64]
            ends = torch.tensor([len(prompts[i]) for i in chunk])
            ids = torch.full((len(chunk), int(ends.max())), pad_token_id(edited.tokenizer))
            for row, i in enumerate(chunk):
                ids[row, : len(prompts[i])] = torch.tensor(prompts[i])
            columns = torch.arange(ids.shape[1])[None]
            mask = columns < ends[:, None]
            wanted = columns == ends[:, None] - 1 if reads_last else mask
            ids, mask = ids.to(edited.device), mask.long().to(edited.device)
            with (
                edited.base.forward_context(ends.to(edited.device)),
                selecting(lambda hidden: hidden[:0, 0]),
            ):
                edited.model(input_ids=ids, attention_mask=mask, use_cache=False)
            for i in range(num_read):
                kept[i].append(caught[i][wanted.to(caught[i].device)])
            rows.append(torch.tensor(chunk)[wanted.nonzero()[:, 0]])
    flat = torch.cat(rows)
    by_row = flat.argsort(stable=True)
    found = [
        _States(torch.cat(states)[by_row.to(states[0].device)], flat[by_row], len(prompts)) for states in kept
    ]
    return found + [found[0]] * (len(config.layers) - num_read)
