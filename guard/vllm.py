"""Serving with vLLM: the gate in front of the engine, the ban inside it, closed where either is missing.

Not run here: vLLM is not among this project's dependencies. What does not need it (tickets, the book-keeping of a
batch, the masking) is tested without it; the class that vLLM loads, `GuardProcessor`, is made when vLLM asks for it:
by the entry point ``vllm.logits_processors`` of this package, or by name:

    GUARD_STORE=store/ GUARD_KEY=... vllm serve MODEL --logits-processors guard.vllm:GuardProcessor

The server's `Gatekeeper` judges a prompt and signs a ticket for it, which travels in
``SamplingParams.extra_args["guard"]`` and names phrases by their place in the store, never by their text. In the
engine a request without a ticket, with a forged one, or with the ticket of another prompt gets no text at all: its
end token is all that is left. A client that leaves the ticket out gains nothing. Name the class on the command line
as well where requests without a ticket should be refused at once: the engine's newer front end asks only named
processors.

An engine that finds the package installed and no ``GUARD_STORE`` does not start; ``GUARD_STORE=off`` serves without
a guard on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.errors import ConfigError
from eval.types import Prompt, conversation
from guard.config import check_policy
from guard.core import Guard
from guard.gate import Decision
from guard.plan import Plan
from guard.refusals import refusal_for
from guard.store import Entry

__all__ = ["ARGUMENT", "CLOSED", "Admission", "Gatekeeper", "checked_key", "decision_of"]

ARGUMENT = "guard"
"""Name of the ticket among a request's extra arguments."""
_SHORTEST_KEY = 16
_FREE = Decision(flagged=False, score=0.0, threshold=1.0)
CLOSED = Decision(flagged=True, score=1.0, threshold=0.0)
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
        self._guard, self._key, self._policy = guard, checked_key(key), check_policy(policy)

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
        return CLOSED
    signature, _, body = ticket.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(key, body, prompt_token_ids).encode()):
        return CLOSED
    content = json.loads(body)
    if not content["flagged"]:
        return _FREE
    phrases: list[str] = []
    for name, places in content["places"].items():
        entry = entries.get(int(name))
        if entry is None or max(places) >= len(entry.phrases):
            return CLOSED  # the engine's store is older than the server's
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


def checked_key(key: bytes) -> bytes:
    """Return the key.

    Raises:
        ConfigError: If it is too short.
    """
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(f"The guard's key has {len(key)} bytes; use at least {_SHORTEST_KEY} random ones.")
    return key


def __getattr__(name: str) -> Any:
    """Make `GuardProcessor` when it is asked for: only then must vLLM be there."""
    if name != "GuardProcessor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from guard.vllm_engine import processor_class

    return processor_class()
