"""What stands inside vLLM's engine: which request a row of logits belongs to, and what its ticket bans there.

Not run here (see `guard.vllm`). vLLM has two model runners with an interface each: the first tells of requests that
come, go and move between the rows of a batch (`BatchBook`); the second has a slot for each request and says with every
step which slot a row belongs to, several rows where tokens were drafted (`SlotBook`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.errors import ConfigError
from guard.persistence import load_store
from guard.processor import GuardLogitsProcessor
from guard.store import Entry
from guard.vllm import ARGUMENT, CLOSED, checked_key, decision_of

__all__ = ["BatchBook", "SlotBook", "Step", "processor_class"]

OFF = "off"
"""Value of ``GUARD_STORE`` that serves without a guard."""


class BatchBook:
    """The rows of the engine's batch, kept as requests come, go and move; needs no vLLM.

    Args:
        key: The server's.
        entries: Of the store.
        tokenizer: The model's.
    """

    def __init__(self, key: bytes, entries: Mapping[int, Entry], tokenizer: Any) -> None:
        self._decide = partial(decision_of, key=checked_key(key), entries=entries)
        self._tokenizer = tokenizer
        self._rows: dict[int, tuple[GuardLogitsProcessor, Sequence[int]]] = {}

    def remove(self, row: int) -> None:
        """Forget a row's request."""
        self._rows.pop(row, None)

    def add(
        self,
        row: int,
        ticket: object,
        prompt_token_ids: Sequence[int] | None,
        output_token_ids: Sequence[int],
    ) -> None:
        """Take a request in.

        Args:
            row: Of the batch; a request that stood there is forgotten.
            ticket: From the request's extra arguments; anything but a valid ticket closes the row.
            prompt_token_ids: ``None`` (a prompt given as embeddings) closes the row too.
            output_token_ids: The engine's own list, which grows as tokens are generated.
        """
        decision = self._decide(ticket, prompt_token_ids) if prompt_token_ids is not None else CLOSED
        self._rows[row] = GuardLogitsProcessor([decision], self._tokenizer, 0), output_token_ids

    def move(self, source: int, target: int, *, swaps: bool) -> None:
        """Put a row's request into another row; ``swaps``: the other way round as well."""
        moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
        if moved is not None:
            self._rows[target] = moved
        if swaps and other is not None:
            self._rows[source] = other

    def apply(self, logits: Tensor) -> Tensor:
        """Mask the next token's logits, shape ``(B, V)``; a row that nobody announced is closed."""
        out = logits.clone()
        for row in range(len(logits)):
            processor, output = self._rows.get(row) or (self._closed(), ())
            tokens = torch.tensor([list(output)], dtype=torch.long)
            out[row] = processor(tokens, logits[row : row + 1])[0]
        return out

    def _closed(self) -> GuardLogitsProcessor:
        return GuardLogitsProcessor([CLOSED], self._tokenizer, 0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How the rows of one step's logits belong to requests; every list has an item a row."""

    slots: Sequence[int]
    """The request's slot."""
    offsets: Sequence[int]
    """Which of its request's rows it is: a row more for each drafted token."""
    positions: Sequence[int]
    """Position in its sequence of the token that was fed for it."""
    fed: Sequence[int]
    """That token: for a row beyond the first of its request a drafted one."""


class SlotBook:
    """The slots of the engine's requests; needs no vLLM.

    Args:
        key: The server's.
        entries: Of the store.
        tokenizer: The model's.
        history: Slot and number to that many of the slot's first tokens: prompt, then what was generated.
        prompt_length: Slot to the length of its prompt.
    """

    def __init__(
        self,
        key: bytes,
        entries: Mapping[int, Entry],
        tokenizer: Any,
        history: Callable[[int, int], Sequence[int]],
        prompt_length: Callable[[int], int],
    ) -> None:
        self._decide = partial(decision_of, key=checked_key(key), entries=entries)
        self._tokenizer = tokenizer
        self._history, self._prompt_length = history, prompt_length
        self._tickets: dict[int, object] = {}
        self._known: dict[int, GuardLogitsProcessor] = {}

    def add(self, slot: int, ticket: object) -> None:
        """Take a request in; what stood in the slot is forgotten. Its prompt is read with its first row."""
        self._tickets[slot] = ticket
        self._known.pop(slot, None)

    def apply(self, logits: Tensor, step: Step) -> Tensor:
        """Mask the next tokens' logits, shape ``(R, V)``; rows of a slot that nobody announced are closed."""
        out = logits.clone()
        for row, (slot, offset) in enumerate(zip(step.slots, step.offsets, strict=True)):
            first = row - offset
            processor = self._of(slot)
            if not processor.is_active:
                continue
            tokens: list[int] = []
            if slot in self._tickets:
                written = list(self._history(slot, step.positions[first] + 1))[self._prompt_length(slot) :]
                tokens = [*written, *step.fed[first + 1 : row + 1]]
            out[row] = processor(torch.tensor([tokens], dtype=torch.long), logits[row : row + 1])[0]
        return out

    def _of(self, slot: int) -> GuardLogitsProcessor:
        if slot not in self._tickets:
            return GuardLogitsProcessor([CLOSED], self._tokenizer, 0)
        if slot not in self._known:
            prompt = self._history(slot, self._prompt_length(slot))
            decision = self._decide(self._tickets[slot], prompt)
            self._known[slot] = GuardLogitsProcessor([decision], self._tokenizer, 0)
        return self._known[slot]


def processor_class() -> type:
    """Make the class for the model runner that vLLM uses; the other runner refuses it at its start.

    Raises:
        ImportError: If vLLM is not installed.
    """
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "0":
        try:
            return _slot_class(import_module("vllm.v1.worker.gpu.sample.logits_processor"))
        except ImportError:  # a vLLM from before that runner took processors
            pass
    return _batch_class(import_module("vllm.v1.sample.logits_processor"))


def _batch_class(engine: Any) -> type:
    class GuardProcessor(engine.LogitsProcessor):  # type: ignore[misc]
        """Bans what a request's ticket names; closes the rows of requests without one."""

        @classmethod
        def validate_params(cls, params: Any) -> None:
            _validate(params)

        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            parts = _parts(vllm_config)
            self._book = BatchBook(*parts) if parts is not None else None

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            if batch_update is None or self._book is None:
                return
            for row in batch_update.removed:
                self._book.remove(row)
            for row, params, prompt, output in batch_update.added:
                self._book.add(row, _ticket(params), prompt, output)
            for source, target, direction in batch_update.moved:
                self._book.move(source, target, swaps=direction == engine.MoveDirectionality.SWAP)

        def apply(self, logits: Tensor) -> Tensor:
            return logits if self._book is None else self._book.apply(logits)

    return GuardProcessor


def _slot_class(engine: Any) -> type:
    class GuardProcessor(engine.LogitsProcessor):  # type: ignore[misc]
        """Bans what a request's ticket names; closes the rows of requests without one."""

        @classmethod
        def validate_params(cls, sampling_params: Any) -> None:
            _validate(sampling_params)

        def __init__(self, vllm_config: Any, req_states: Any) -> None:
            parts = _parts(vllm_config)
            tokens = req_states.all_token_ids
            table = tokens.device_tensor if hasattr(tokens, "device_tensor") else tokens.gpu

            def history(slot: int, length: int) -> Sequence[int]:
                return [int(token) for token in table[slot, :length].tolist()]

            def prompt_length(slot: int) -> int:
                return int(req_states.prompt_len.np[slot])

            self._book = SlotBook(*parts, history, prompt_length) if parts is not None else None

        def add_request(self, req_idx: int, sampling_params: Any) -> bool:
            if self._book is None:
                return False
            self._book.add(req_idx, _ticket(sampling_params))
            return True

        def apply(self, logits: Tensor, ctx: Any) -> Tensor:
            if self._book is None:
                return logits
            step = Step(
                slots=ctx.expanded_idx_mapping.tolist(),
                offsets=ctx.expanded_local_pos.tolist(),
                positions=ctx.pos.tolist(),
                fed=ctx.input_ids.tolist(),
            )
            return self._book.apply(logits, step)

    return GuardProcessor


def _ticket(params: Any) -> object:
    return (params.extra_args or {}).get(ARGUMENT)


def _validate(params: Any) -> None:
    if os.environ.get("GUARD_STORE") != OFF and not isinstance(_ticket(params), str):
        raise ValueError("This server answers only requests that its guard has admitted.")


def _parts(vllm_config: Any) -> tuple[bytes, Mapping[int, Entry], Any] | None:
    """Return key, entries and tokenizer; ``None`` where the guard is switched off on purpose."""
    from transformers import AutoTokenizer

    folder = _variable("GUARD_STORE")
    if folder == OFF:
        return None
    key = _variable("GUARD_KEY").encode()
    store, _ = load_store(Path(folder), str.isalpha)
    return key, store.entries, AutoTokenizer.from_pretrained(vllm_config.model_config.tokenizer)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(
            f"The environment variable {name} is not set; the engine does not start unguarded. Set it, or set "
            f"GUARD_STORE={OFF} to serve without a guard."
        )
    return value
