"""What is done with each prompt: judged once, then answered, restricted or refused, and written to the audit log.

`guard.generate`, `guard.stream`, `guard.wrap` and `GuardedModel` all decide here, so that they agree.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eval.errors import ConfigError
from eval.types import Message
from guard.audit import Action, AuditLog, AuditRecord, elapsed_ms
from guard.config import Policy
from guard.deadline import Judge
from guard.gate import Decision
from guard.processor import MaskRecord
from guard.refusals import refusal_for
from guard.restriction import must_refuse, restriction_for

__all__ = ["Plan", "judged"]


@dataclass
class Plan:
    """What is to be done with one prompt, and what came of it."""

    messages: tuple[Message, ...]
    decision: Decision
    policy: Policy
    refusal: str
    """What is said instead of an answer, if something is."""
    masked_steps: int = 0
    fell_back: bool = False
    """Whether an answer was begun and then refused, because nothing could be said without a phrase."""

    @property
    def is_refused(self) -> bool:
        """Whether the prompt is refused before any answer."""
        cannot = self.policy == "restrict" and must_refuse(self.decision)
        return self.decision.flagged and (self.policy == "refuse" or cannot)

    @property
    def is_restricted(self) -> bool:
        """Whether the answer must leave phrases out."""
        return self.decision.flagged and self.policy == "restrict"

    @property
    def action(self) -> Action:
        """For the audit log."""
        if self.decision.failure and (self.policy == "monitor" or not self.decision.flagged):
            return "skipped"
        if not self.decision.flagged:
            return "passed"
        if self.policy == "monitor":
            return "noted"
        return "refused" if self.is_refused or self.fell_back else "restricted"

    def settle(self, text: str, tokens: Sequence[int], record: MaskRecord, key: Any, tokenizer: Any) -> str:
        """Return what is said: the text, or the refusal where nothing could be said without a phrase.

        Args:
            text: What the model wrote.
            tokens: Its ids, without the end token.
            record: Of the processor that restricted it.
            key: The prompt's in ``record``.
            tokenizer: The model's.
        """
        if self.is_refused:
            return self.refusal
        if not self.is_restricted:
            return text
        self.masked_steps += record.masked_steps(key, tokens)
        restriction = restriction_for(self.decision, tokenizer)
        assert restriction is not None
        if record.is_dead_end(key, tokens) or restriction.matches(text):
            self.fell_back = True
            return self.refusal
        return text


@contextmanager
def judged(
    guard: Judge,
    conversations: Sequence[tuple[Message, ...]],
    policy: Policy,
    *,
    audit: AuditLog | None = None,
    request_ids: Sequence[str] = (),
) -> Iterator[tuple[list[Plan], list[list[str]]]]:
    """Judge the prompts, and log what was done with them when the block ends, or that it failed.

    A stream that its reader closes early is logged as what was done until then.

    Yields:
        A plan for each prompt, and a list of texts for each, to be filled with the answers (for a log with text).

    Raises:
        ConfigError: If there are request ids, but not one for each prompt, or the guard is none.
    """
    if not hasattr(guard, "check_many"):
        raise ConfigError(
            f"guard is {type(guard).__name__!r}, which decides nothing; give a guard, such as guard.Guard.load(store)."
        )
    if request_ids and len(request_ids) != len(conversations):
        raise ConfigError(
            f"There are {len(request_ids)} request ids for {len(conversations)} prompts; give one for each."
        )
    names = list(request_ids) or [""] * len(conversations)
    start = time.perf_counter()
    check_ms = 0.0
    plans: list[Plan] = []
    answers: list[list[str]] = [[] for _ in conversations]
    reason = ""
    try:
        for messages, decision in zip(conversations, guard.check_many(conversations), strict=True):
            turns = [message.content for message in messages if message.is_prompt]
            plans.append(Plan(messages, decision, policy, refusal_for(turns, guard.refusals)))
        check_ms = elapsed_ms(start) / max(1, len(conversations))
        yield plans, answers
    except BaseException as error:
        reason = type(error).__name__
        raise
    finally:
        for i, messages in enumerate(conversations if audit is not None else ()):
            assert audit is not None
            plan = plans[i] if i < len(plans) else None
            entry = AuditRecord(
                action="failed" if plan is None or reason not in ("", "GeneratorExit") else plan.action,
                policy=policy,
                request_id=names[i],
                decision=None if plan is None else plan.decision,
                masked_steps=0 if plan is None else plan.masked_steps,
                check_ms=check_ms,
                latency_ms=elapsed_ms(start),
                reason=reason or ("" if plan is None else plan.decision.failure),
            )
            audit.record(entry, messages=messages, answer="\n".join(answers[i]))
