"""Permanent hooks that edit nothing until a `ContextVar` says where.

Base and edited model share one `nn.Module`: the hooks stay on its blocks, and each forward looks up which
edits are active in its own thread. They work with any feature of Hugging Face's ``generate`` (streaming,
beams, chunked prefill, prompt lookup), with left padding, and with plain and edited rows in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.blocks import decoder_blocks
from grun.config import Positions
from grun.gate import FollowingGate, PhraseGate, pooled_logits
from grun.held import held_states, hold

__all__ = ["SHUT", "Activation", "activated", "install_hooks", "silenced"]

SHUT = -4.6
"""Gate logit (1 % open) below which a held gate counts as shut outside training: the row then stays the base's."""
WIDE_OPEN = 20.0
"""Gate logit of a row that is held open."""


class Activation:
    """One edit at work in one context: which blocks, which rows, which columns.

    Args:
        owner: The module whose forward runs through the blocks; tells how many columns the cache holds.
        edits: Block to its intervention.
        prompt_end: Column one past the last prompt token of each row, shape ``(B,)``, cached columns counted.
        positions: Which columns of a row are edited.
        rows: True at rows that are edited, shape ``(B,)``; ``None``: every row.
        keeps_gates: Record the gate logits of each block in `gates`.
    """

    def __init__(
        self,
        owner: nn.Module,
        edits: Mapping[nn.Module, nn.Module],
        prompt_end: Tensor,
        positions: Positions,
        *,
        rows: Tensor | None = None,
        keeps_gates: bool = False,
    ) -> None:
        self.owner = owner
        self.edits = edits
        self.positions = positions
        self.gates: dict[nn.Module, Tensor] = {}
        """Block to the gate logits of its last forward, with gradient: pooled over each row, shape ``(B,)``."""
        self.open_rows: Tensor | None = None
        """Rows whose gate is held wide open (``answer`` positions, for training), bool, shape ``(B,)``."""
        self._keeps_gates = keeps_gates
        self._ends = prompt_end if rows is None else torch.where(rows, prompt_end, 0)
        self._rows = rows
        self._last = int(prompt_end.max()) - 1
        self._offset = 0
        self._held: dict[int, Tensor] = {}
        self._idle: set[int] = set()
        self._decided: Tensor | None = None
        self._mask: Any = None

    def note_call(self, past_key_values: Any, attention_mask: Any) -> None:
        """Remember, of the forward that starts now, the columns in its cache, the gates held there, and its padding."""
        self._offset = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        holds = self.positions == "answer" and self._offset
        self._held, self._idle = held_states(past_key_values) if holds else ({}, set())
        self._decided = None
        self._mask = attention_mask

    def leave_in_cache(self, past_key_values: Any) -> None:
        """Let the cache of the forward that ends now hold the gates its rows were given."""
        if self._held and past_key_values is not None:
            hold(past_key_values, self._held, self._idle)

    def stacked(self) -> Tensor:
        """Return the recorded gate logits of all blocks, in the order of ``edits``, shape ``(L, B)``."""
        logits = [self.gates[block] for block in self.edits]
        return torch.stack([logit.to(logits[0].device) for logit in logits])

    def apply(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Return ``hidden`` (the block's output, shape ``(B, T, D)``), edited at this context's positions."""
        edit = self.edits.get(block)
        if edit is None:
            return hidden
        is_answering = self._offset > self._last
        if is_answering and (self.positions in ("last_prompt", "prompt") or self._is_idle(edit)):
            return hidden
        if next(edit.parameters()).device != hidden.device:  # a block's device is known for sure only now
            edit.to(hidden.device)
        if self.positions == "answer":
            return self._apply_held(block, cast(Any, edit), hidden)
        where = self._where(hidden)
        if not len(where[0]):
            return hidden
        out = edit(hidden[where])
        if self._keeps_gates:
            self._record(block, where[0], out.latent[:, 0], len(hidden))
        return hidden.index_put(where, out.output)

    def _is_idle(self, edit: nn.Module) -> bool:
        return id(edit) in self._idle and not self._keeps_gates and self.open_rows is None

    def _apply_held(self, block: nn.Module, edit: Any, hidden: Tensor) -> Tensor:
        """Edit the answer's columns by the gate that each row was given for its prompt."""
        num_rows, width = hidden.shape[:2]
        ends = self._expanded(self._ends, num_rows, hidden.device)
        logits = self._held_logits(edit, hidden, ends).to(hidden.device)
        if self._keeps_gates:
            self.gates[block] = logits
        if self.open_rows is not None:
            logits = logits.masked_fill(self.open_rows.to(logits.device), WIDE_OPEN)
        edited_rows = ends > 0
        if not torch.is_grad_enabled():
            edited_rows = edited_rows & (logits > SHUT)
            # the usual decoding step: every row is edited, nothing to pick from
            if self._offset > self._last and bool(edited_rows.all()):
                return cast(Tensor, edit.edited(hidden, logits[:, None, None]))
        columns = torch.arange(self._offset, self._offset + width, device=hidden.device)[None]
        where = ((columns >= ends[:, None] - 1) & edited_rows[:, None]).nonzero(as_tuple=True)
        # the whole prompt has been read
        if self._offset + width > self._last and self._rows is None and not torch.is_grad_enabled():
            (self._idle.discard if len(where[0]) else self._idle.add)(id(edit))
        if not len(where[0]):
            return hidden
        return hidden.index_put(where, edit.edited(hidden[where], logits[where[0], None]))

    def _held_logits(self, edit: Any, hidden: Tensor, ends: Tensor) -> Tensor:
        """Return each row's gate logit, shape ``(B,)``: read now as far as the prompt is in this forward, else held."""
        key = id(edit)
        if isinstance(edit.gate, FollowingGate):
            assert self._decided is not None  # the first edited block has run in this forward
            return self._decided
        state = self._held.get(key)
        if isinstance(edit.gate, PhraseGate):
            if self._offset <= self._last:
                state = self._held[key] = edit.gate.scan(hidden, self._prompt_mask(hidden, ends), state)
            assert state is not None
            self._decided = edit.gate.decide(state.to(hidden.device))
            return self._decided
        if state is None:
            state = torch.full((len(ends), 1), -torch.inf, device=hidden.device)
        if self._offset <= self._last:
            last = ends - 1 - self._offset
            rows = ((last >= 0) & (last < hidden.shape[1]) & (ends > 0)).nonzero()[:, 0]
            state = state.index_put((rows,), edit.gate(hidden[rows, last[rows]]))
        self._held[key] = state
        return state[:, 0]

    def _prompt_mask(self, hidden: Tensor, ends: Tensor) -> Tensor:
        """Return which columns of this forward are real prompt tokens, bool, shape ``(B, T)``."""
        stop = self._offset + hidden.shape[1]
        columns = torch.arange(self._offset, stop, device=hidden.device)[None]
        inside = columns < ends[:, None]
        if self._mask is None:
            return inside
        if not isinstance(self._mask, Tensor) or self._mask.dim() != 2:
            raise ConfigError(
                "A gate of kind 'phrase' must know the padding, but the attention mask of this call is not (batch, "
                "tokens); generate without a static cache, or train with gate=linear."
            )
        return inside & self._mask[:, self._offset : stop].to(hidden.device).bool()

    def _expanded(self, values: Tensor, num_rows: int, device: torch.device) -> Tensor:
        if num_rows % len(values):
            raise RuntimeError(
                f"The edit was activated for {len(values)} rows, but the model runs on {num_rows}; "
                "activate it with the prompt_end of exactly these rows."
            )
        return values.to(device).repeat_interleave(num_rows // len(values))

    def _where(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        num_rows, width = hidden.shape[:2]
        ends = self._expanded(self._ends, num_rows, hidden.device)
        if self.positions == "last_prompt":
            columns = ends - 1 - self._offset
            rows = ((columns >= 0) & (columns < width) & (ends > 0)).nonzero()[:, 0]
            return rows, columns[rows]
        columns = torch.arange(self._offset, self._offset + width, device=hidden.device)[None]
        wanted = (
            columns < ends[:, None] if self.positions == "prompt" else (ends > 0)[:, None].expand(-1, width)
        )
        if (
            isinstance(self._mask, Tensor) and self._mask.dim() == 2
        ):  # padding must not speak for its row's gate
            wanted = wanted & self._mask[:, self._offset : self._offset + width].to(hidden.device).bool()
        rows, columns = wanted.nonzero(as_tuple=True)
        return rows, columns

    def _record(self, block: nn.Module, rows: Tensor, logits: Tensor, num_rows: int) -> None:
        self.gates[block] = pooled_logits(logits, rows, num_rows)


_ACTIVE: ContextVar[tuple[Activation, ...]] = ContextVar("grun_active", default=())


@contextmanager
def activated(activation: Activation) -> Iterator[Activation]:
    """Let ``activation`` edit every forward inside the block, after those already active."""
    token = _ACTIVE.set((*_ACTIVE.get(), activation))
    try:
        yield activation
    finally:
        _ACTIVE.reset(token)


@contextmanager
def silenced() -> Iterator[None]:
    """Let no edit be active inside the block."""
    token = _ACTIVE.set(())
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def _note_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for activation in _ACTIVE.get():
        if activation.owner is module:
            activation.note_call(kwargs.get("past_key_values"), kwargs.get("attention_mask"))


def _leave_in_cache(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    for activation in _ACTIVE.get():
        if activation.owner is module:
            activation.leave_in_cache(getattr(output, "past_key_values", None))


def _edit_block(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    active = _ACTIVE.get()
    if not active:
        return None
    is_tuple = isinstance(output, tuple)
    hidden = before = cast(Tensor, output[0] if is_tuple else output)
    for activation in active:
        hidden = activation.apply(module, hidden)
    if hidden is before:
        return None
    return (hidden, *output[1:]) if is_tuple else hidden


def install_hooks(model: Any) -> tuple[nn.Module, nn.ModuleList]:
    """Put the permanent hooks on ``model`` where they are missing.

    Returns:
        The module that owns the decoder blocks, and the blocks.
    """
    path, blocks = decoder_blocks(model)
    owner: nn.Module = model.get_submodule(path.rpartition(".")[0])
    if _note_call not in owner._forward_pre_hooks.values():
        owner.register_forward_pre_hook(_note_call, with_kwargs=True)
    if _leave_in_cache not in owner._forward_hooks.values():
        owner.register_forward_hook(_leave_in_cache)
    for block in blocks:
        if _edit_block not in block._forward_hooks.values():
            # prepend: hooks that capture hidden states must see the edited ones
            block.register_forward_hook(_edit_block, prepend=True)
    return owner, blocks
