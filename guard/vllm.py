"""Serving with vLLM: the gate in front of the engine, the ban inside it, closed where either is missing.

Not run here: vLLM is not among this project's dependencies. What does not need it (tickets, the book-keeping of a
batch, the masking) is tested without it; the class that vLLM loads, `GuardProcessor`, is made when vLLM asks for it:

    GUARD_STORE=store/ GUARD_KEY=... vllm serve MODEL --logits-processors guard.vllm:GuardProcessor

The server's `Gatekeeper` judges a prompt and signs a ticket for it, which travels in
``SamplingParams.extra_args["guard"]`` and names phrases by their place in the store, never by their text. In the
engine a request without a ticket, with a forged one, or with the ticket of another prompt gets no text at all: its
end token is all that is left. A client that leaves the ticket out gains nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from eval.errors import ConfigError
from eval.types import Prompt, conversation
from guard.config import check_policy
from guard.core import Guard
from guard.gate import Decision
from guard.plan import Plan
from guard.processor import GuardLogitsProcessor
from guard.refusals import refusal_for
from guard.store import Entry

__all__ = ["ARGUMENT", "Admission", "BatchBook", "Gatekeeper", "decision_of"]

ARGUMENT = "guard"
"""Name of the ticket among a request's extra arguments."""
_SHORTEST_KEY = 16
_FREE = Decision(flagged=False, score=0.0, threshold=1.0)
_CLOSED = Decision(flagged=True, score=1.0, threshold=0.0)
"""Names nothing to leave out, so everything is banned."""


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What the gate says to a request before it reaches the engine."""

    decision: Decision
    refusal: str | None = None
    """Send this instead of asking the engine."""
    extra_args: Mapping[str, str]
    """For ``SamplingParams.extra_args``; empty with a refusal."""


class Gatekeeper:
    """Judges prompts in the server and signs tickets for the engine.

    Args:
        guard: What must not be said; the engine loads the same store.
        key: Secret that server and engine share, at least 16 bytes.
        policy: ``restrict`` or ``refuse``; ``monitor`` lets everything pass, with a ticket.

    Raises:
        ConfigError: If the key is too short or the policy unknown.
    """

    def __init__(self, guard: Guard, key: bytes, *, policy: str = "restrict") -> None:
        self._guard, self._key, self._policy = guard, _checked_key(key), check_policy(policy)

    def admit(self, prompt: Prompt, prompt_token_ids: Sequence[int]) -> Admission:
        """Judge a prompt.

        A decision that cannot be named by places in the store (a private store's) is refused.

        Args:
            prompt: The conversation, before any template.
            prompt_token_ids: The rendered prompt exactly as the engine will get it.
        """
        messages = conversation(prompt)
        decision = self._guard.check(messages)
        turns = [message.content for message in messages if message.is_prompt]
        plan = Plan(messages, decision, self._policy, refusal_for(turns, self._guard.refusals))
        places: dict[str, list[int]] | None = {}
        if plan.is_restricted:
            places = _places(decision, self._guard.store.entries)
        if plan.is_refused or places is None:
            return Admission(decision=decision, refusal=plan.refusal, extra_args={})
        body = json.dumps({"flagged": plan.is_restricted, "places": places}, sort_keys=True)
        signed = f"{_signature(self._key, body, prompt_token_ids)}.{body}"
        return Admission(decision=decision, extra_args={ARGUMENT: signed})


def decision_of(
    ticket: object, prompt_token_ids: Sequence[int], *, key: bytes, entries: Mapping[int, Entry]
) -> Decision:
    """Return what a ticket allows for a prompt; a decision that bans everything if the ticket is not right."""
    if not isinstance(ticket, str):
        return _CLOSED
    signature, _, body = ticket.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(key, body, prompt_token_ids).encode()):
        return _CLOSED
    content = json.loads(body)
    if not content["flagged"]:
        return _FREE
    phrases: list[str] = []
    for name, places in content["places"].items():
        entry = entries.get(int(name))
        if entry is None or max(places) >= len(entry.phrases):
            return _CLOSED  # the engine's store is older than the server's
        phrases.extend(entry.phrases[place] for place in places)
    return Decision(flagged=True, score=1.0, threshold=0.0, phrases=tuple(dict.fromkeys(phrases)))


def _places(decision: Decision, entries: Mapping[int, Entry]) -> dict[str, list[int]] | None:
    """Where the store has the decision's phrases; ``None`` if not all that it forbids can be named so."""
    if decision.passages or decision.hashes is not None:
        return None
    wanted = set(decision.phrases)
    places: dict[str, list[int]] = {}
    for entry_id in decision.entries:
        found = [i for i, phrase in enumerate(entries[entry_id].phrases) if phrase in wanted]
        wanted -= {entries[entry_id].phrases[i] for i in found}
        if found:
            places[str(entry_id)] = found
    return None if wanted else places


def _signature(key: bytes, body: str, prompt_token_ids: Sequence[int]) -> str:
    tokens = ",".join(map(str, prompt_token_ids))
    return hmac.new(key, f"{tokens}|{body}".encode(), hashlib.sha256).hexdigest()


def _checked_key(key: bytes) -> bytes:
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(f"The guard's key has {len(key)} bytes; use at least {_SHORTEST_KEY} random ones.")
    return key


class BatchBook:
    """The rows of the engine's batch, kept as requests come, go and move; needs no vLLM.

    Args:
        key: The server's.
        entries: Of the store.
        tokenizer: The model's.
    """

    def __init__(self, key: bytes, entries: Mapping[int, Entry], tokenizer: Any) -> None:
        self._decide = partial(decision_of, key=_checked_key(key), entries=entries)
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
        decision = self._decide(ticket, prompt_token_ids) if prompt_token_ids is not None else _CLOSED
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
        return GuardLogitsProcessor([_CLOSED], self._tokenizer, 0)


def _processor_class() -> type:
    """Make the class for vLLM's V1 engine; the engine's newer model runner has another interface and refuses it."""
    from transformers import AutoTokenizer

    engine = import_module("vllm.v1.sample.logits_processor")

    class GuardProcessor(engine.LogitsProcessor):  # type: ignore[misc, name-defined]
        """Bans what a request's ticket names; closes the rows of requests without one."""

        @classmethod
        def validate_params(cls, params: Any) -> None:
            if not isinstance((params.extra_args or {}).get(ARGUMENT), str):
                raise ValueError("This server answers only requests that its guard has admitted.")

        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            model = vllm_config.model_config
            tokenizer = AutoTokenizer.from_pretrained(model.tokenizer)
            guard = Guard.load(_variable("GUARD_STORE"))
            self._book = BatchBook(_variable("GUARD_KEY").encode(), guard.store.entries, tokenizer)

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            if batch_update is None:
                return
            for row in batch_update.removed:
                self._book.remove(row)
            for row, params, prompt, output in batch_update.added:
                self._book.add(row, (params.extra_args or {}).get(ARGUMENT), prompt, output)
            for source, target, direction in batch_update.moved:
                self._book.move(source, target, swaps=direction == engine.MoveDirectionality.SWAP)

        def apply(self, logits: Tensor) -> Tensor:
            return self._book.apply(logits)

    return GuardProcessor


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"The environment variable {name} is not set; the engine does not start unguarded.")
    return value


def __getattr__(name: str) -> Any:
    """Make `GuardProcessor` when it is asked for: only then must vLLM be there."""
    if name != "GuardProcessor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _processor_class()
