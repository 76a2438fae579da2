"""A head start for the gates: fitted on the base model's hidden states before the edit is trained.

The paper lets the gate learn first by ramping all other terms up from zero (omega(t)). While nothing is edited, a
gate's inputs do not change, so they are computed once and the fit takes seconds instead of hundreds of forwards.
Every row meets the gates in other wordings than the benchmark's own as well (`eval.data.augment`). Many drawn prompts
seen a few times teach more than few seen often, which a gate learns by heart: a phrase gate's are all drawn before its
first step, and drawn anew, in rounds, only where their states would not fit into memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.artifacts import fingerprint
from eval.data.augment import PromptSource
from eval.data.collate import encode_prompts, pad_token_id
from eval.models.forward import evaluating
from eval.types import Example
from grun.base import OnBase
from grun.gate import WINDOW, FollowingGate, Gate, PhraseGate, pooled_logits
from grun.model import EditedModel

__all__ = ["fit_gates", "forget_fits"]

MAX_STATES_BYTES = 2**30
"""Hidden states of phrase gates kept at once, about; prompts beyond it are drawn in further rounds."""

MIN_DRAWN, MAX_DRAWN, MAX_POOL = 400, 2000, 6000
"""Drawn prompts of a round that must open the gates (the last: phrase gates); twice as many must not."""

MAX_FITTED = 4
_FITTED: dict[str, tuple[dict[str, Tensor], list[float]]] = {}
"""Phrase gates fitted lately in this process: a comparison of several losses on one model fits once."""

WEIGHT_DECAY = 0.5
"""Of phrase gates."""

SURENESS = 3.0
"""Phrase gates' logits are multiplied by it after the fit: prompts beside each other make them timid, and an edit that
is half open neither forgets nor keeps. What fires stays the same."""

BATCH, PARTS = 64, 4
"""Phrase gates: opening prompts in a step, beside twice as many others; read in so many parts of like length."""

READ_AT_ONCE = 32
"""Prompts in a forward of the base: a block's states stay in a processor's cache."""


def fit_gates(
    edited: EditedModel,
    forget: Sequence[Example],
    others: Sequence[Example],
    *,
    steps: int,
    learning_rate: float = 0.1,
    variants: int = 0,
    rounds: int = 1,
    seed: int = 0,
) -> list[float]:
    """Fit every gate to open on ``forget`` and stay shut on ``others``, by logistic loss on cached states.

    Both sides count the same in total. Adam, learning rate decaying to 0; on all states at once, or for phrase
    gates in random batches with a tenth of the learning rate and weight decay.

    Args:
        edited: Its gates are changed in place.
        forget: Rows that must open the gates.
        others: Rows that must not.
        steps: Adam steps in all rounds together.
        learning_rate: The first step's.
        variants: Prompts drawn in each round for each forget row in addition, and twice as many innocent ones.
        rounds: Times that prompts are drawn anew; a round that does not fit into memory is split into several.
        seed: Of what is drawn.

    Returns:
        The final loss of each gate, nats.
    """
    key = _key(edited, forget, others, steps, learning_rate, variants, rounds, seed)
    first = edited.interventions[edited.config.layers[0]].gate
    if key in _FITTED:
        known, nats = _FITTED[key]
        first.load_state_dict(known)
        return list(nats)
    fits = {
        place: _fit_of(edited.interventions[layer].gate, steps, learning_rate, seed)
        for place, layer in enumerate(edited.config.layers)
        if not isinstance(edited.interventions[layer].gate, FollowingGate)
    }
    source = PromptSource(forget, others, seed=seed)
    count, rounds = _drawn(edited, forget, variants, rounds) if others else (0, 1)
    rounds = min(rounds, steps)
    losses: list[float] = []
    for i in range(rounds):
        opening = _distinct([*forget, *source.opening(count, "fit", i)])
        prompts = [*opening, *_distinct([*others, *source.shutting(2 * count, "fit", i)])]
        states = _states_of_all(edited, prompts)
        num_steps = steps * (i + 1) // rounds - steps * i // rounds
        losses = [
            fit.run(
                states[place], torch.arange(states[place].num_rows) % len(prompts) < len(opening), num_steps
            )
            for place, fit in fits.items()
        ]
    for fit in fits.values():
        fit.finish()
        fit.gate.requires_grad_(False)
        fit.gate.zero_grad(set_to_none=True)
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


def _drawn(edited: EditedModel, forget: Sequence[Example], variants: int, rounds: int) -> tuple[int, int]:
    """Return how many prompts are drawn in a round, and the rounds: more where the states would not fit otherwise."""
    if not variants:
        return 0, 1
    wanted = max(variants * len(forget), MIN_DRAWN)
    if edited.config.gate != "phrase":
        return min(wanted, MAX_DRAWN), rounds
    wanted = min(wanted, MAX_POOL)
    words = sum(len(row.conversation[-1].content.split()) for row in forget) / len(forget)
    row_bytes = 8 * words * edited.config.hidden_size  # two tokens a word, fp32
    parts = math.ceil(3 * wanted * row_bytes / MAX_STATES_BYTES)
    return math.ceil(wanted / parts), rounds * parts


def _distinct(rows: Sequence[Example]) -> list[Example]:
    """Keep one of several rows that ask the same."""
    return list({row.conversation: row for row in rows}.values())


def _states_of_all(edited: EditedModel, prompts: Sequence[Example]) -> list[_States]:
    """Return what each block's gate reads; where edits lie below, also what it reads without them, behind it.

    Edits below may be taken away one day: the gates must hold without them.
    """
    states = _states(edited, prompts)
    if not isinstance(edited.base, OnBase):
        return states
    with edited.base.edit_disabled():
        without = _states(edited, prompts)
    return [both.joined(alone) for both, alone in zip(states, without, strict=True)]


class _Fit(Protocol):
    """The fit of one gate, round after round."""

    gate: Gate

    def run(self, states: _States, wanted: Tensor, steps: int) -> float:
        """Take further steps on some states, of which those of rows in ``wanted`` ``(B,)`` must open the gate."""

    def finish(self) -> None:
        """Do what is left after the last round."""


def _fit_of(gate: Gate, steps: int, learning_rate: float, seed: int) -> _Fit:
    gate.requires_grad_(True)
    if isinstance(gate, PhraseGate):
        return _PhraseFit(gate, steps, learning_rate / 10, seed)
    return _TokenFit(gate, steps, learning_rate)


class _TokenFit:
    """Fits a gate that reads single hidden states, on all of them in every step."""

    def __init__(self, gate: Gate, steps: int, learning_rate: float) -> None:
        self.gate = gate
        self._steps = _Steps(torch.optim.Adam(gate.parameters(), lr=learning_rate), steps)

    def run(self, states: _States, wanted: Tensor, steps: int) -> float:
        """See `_Fit`."""
        device = next(self.gate.parameters()).device
        seen, rows, wanted = (
            self.gate.read(states.hidden.to(device)),
            states.rows.to(device),
            wanted.to(device),
        )
        loss = torch.zeros(())
        for _ in range(steps):
            logits = pooled_logits(self.gate.score(seen)[:, 0], rows, states.num_rows)
            loss = _logistic(logits, wanted)
            self._steps.take(loss)
        return float(loss.detach())

    def finish(self) -> None:
        """See `_Fit`: nothing."""


class _PhraseFit:
    """Fits a phrase gate in random batches.

    Each prompt is decided twice: alone, and with an innocent prompt of its batch beside it, which changes nothing
    about what is wanted. A detector's strength over both is the larger one, so the second decision costs no reading; it
    teaches the gate that whatever else a prompt says is beside the point.
    """

    def __init__(self, gate: PhraseGate, steps: int, learning_rate: float, seed: int) -> None:
        self.gate: Gate = gate
        self._phrases = gate
        self._generator = torch.Generator().manual_seed(seed)
        fresh = PhraseGate(gate.detectors.shape[1] // WINDOW, gate.reads, self._generator)
        gate.load_state_dict(fresh.state_dict())  # whatever was drawn before it
        optimizer = torch.optim.AdamW(gate.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
        self._steps = _Steps(optimizer, steps)

    def run(self, states: _States, wanted: Tensor, steps: int) -> float:
        """See `_Fit`."""
        sides = [(wanted.nonzero()[:, 0], BATCH), ((~wanted).nonzero()[:, 0], 2 * BATCH)]
        losses: list[float] = []
        for _ in range(steps):
            rows = torch.cat(
                [side[torch.randint(len(side), (count,), generator=self._generator)] for side, count in sides]
            )
            rows = rows[states.lengths[rows].argsort(stable=True)]
            read = torch.cat([self._read(states, part) for part in rows.chunk(PARTS)])
            opens = wanted[rows].to(read.device)
            beside = self._innocent(opens)
            loss = (self._loss(read, opens) + self._loss(torch.maximum(read, read[beside]), opens)) / 2
            self._steps.take(loss)
            losses.append(float(loss.detach()))
        last = losses[-10:]
        return sum(last) / max(len(last), 1)

    def finish(self) -> None:
        """See `_Fit`."""
        with torch.no_grad():
            self._phrases.out.mul_(SURENESS)
            self._phrases.out_bias.mul_(SURENESS)

    def _read(self, states: _States, rows: Tensor) -> Tensor:
        device = self._phrases.detectors.device
        hidden, mask = states.padded(rows)
        return self._phrases.scan(hidden.to(device), mask.to(device))

    def _innocent(self, opens: Tensor) -> Tensor:
        """Draw a row of the batch that must stay shut for each row of it, shape ``(B,)``."""
        innocent = (~opens).nonzero()[:, 0]
        drawn = torch.randint(len(innocent), (len(opens),), generator=self._generator)
        return innocent[drawn.to(innocent.device)]

    def _loss(self, read: Tensor, opens: Tensor) -> Tensor:
        return _logistic(self._phrases.decide(read), opens)


class _Steps:
    """Optimizer steps with a learning rate that falls to 0 over ``total`` of them."""

    def __init__(self, optimizer: torch.optim.Optimizer, total: int) -> None:
        self._optimizer, self._total, self._taken = optimizer, total, 0
        self._peak = optimizer.param_groups[0]["lr"]

    def take(self, loss: Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak * (1 - self._taken / self._total)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._taken += 1


def _logistic(logits: Tensor, wanted: Tensor) -> Tensor:
    return (F.softplus(-logits[wanted]).mean() + F.softplus(logits[~wanted]).mean()) / 2


class _States:
    """One block's hidden states at the positions its gate reads, row after row.

    Args:
        hidden: Shape ``(M, D)``.
        rows: Row of each, ascending, shape ``(M,)``.
        num_rows: Rows.
    """

    def __init__(self, hidden: Tensor, rows: Tensor, num_rows: int) -> None:
        self.hidden, self.rows, self.num_rows = hidden, rows, num_rows
        self.lengths = rows.bincount(minlength=num_rows)
        """Positions of each row, shape ``(B,)``."""
        self._starts = self.lengths.cumsum(0) - self.lengths

    def joined(self, other: _States) -> _States:
        """Return these rows followed by the other's."""
        rows = torch.cat([self.rows, other.rows + self.num_rows])
        return _States(torch.cat([self.hidden, other.hidden]), rows, self.num_rows + other.num_rows)

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows' states ``(B, T, D)`` and which of them are real, bool, ``(B, T)``."""
        lengths = self.lengths[rows]
        columns = torch.arange(int(lengths.max()))[None]
        mask = columns < lengths[:, None]
        places = (self._starts[rows, None] + columns).clamp(max=len(self.hidden) - 1)
        return self.hidden[places.to(self.hidden.device)], mask


class _AllReadError(Exception):
    """Ends a forward behind the last block that is read."""


@contextmanager
def _catching(edited: EditedModel, num_read: int) -> Iterator[dict[int, Tensor]]:
    """Yield a dictionary that holds the last output of the first edited blocks, by their place among them.

    A forward inside ends with `_AllReadError` behind the last of them.
    """
    caught: dict[int, Tensor] = {}

    def catcher(i: int):  # type: ignore[no-untyped-def]
        def hook(module: object, args: object, output: object) -> None:
            caught[i] = cast(Tensor, output[0] if isinstance(output, tuple) else output)
            if i == num_read - 1:
                raise _AllReadError

        return hook

    blocks = [edited.block(layer) for layer in edited.config.layers[:num_read]]
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
    with evaluating(edited.model), edited.edit_disabled(), _catching(edited, num_read) as caught:
        for start in range(0, len(prompts), READ_AT_ONCE):
            chunk = order[start : start + READ_AT_ONCE]
            ends = torch.tensor([len(prompts[i]) for i in chunk])
            ids = torch.full((len(chunk), int(ends.max())), pad_token_id(edited.tokenizer))
            for row, i in enumerate(chunk):
                ids[row, : len(prompts[i])] = torch.tensor(prompts[i])
            columns = torch.arange(ids.shape[1])[None]
            mask = columns < ends[:, None]
            wanted = columns == ends[:, None] - 1 if reads_last else mask
            ids, mask = ids.to(edited.device), mask.long().to(edited.device)
            with edited.base.forward_context(ends.to(edited.device)), suppress(_AllReadError):
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
