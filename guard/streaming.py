"""`stream`: the answer in chunks, held back so that no forbidden phrase can leave in pieces.

The text is what `guard.generate` returns: the chunks joined are that text, byte for byte.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from eval.data.collate import encode_prompts, pad_left, pad_token_id
from eval.errors import ConfigError
from eval.models.templates import Template
from eval.types import Message, Prompt
from guard.arguments import eos_ids, refuse_unsupported, setting
from guard.audit import AuditLog
from guard.config import Policy, check_policy
from guard.conversation import conversations
from guard.deadline import Judge
from guard.decoding import Target, decode
from guard.plan import Plan, judged
from guard.processor import MaskRecord
from guard.restriction import Restriction, restriction_for
from guard.soft import SoftMatch

__all__ = ["astream", "stream"]


def stream(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    *,
    guard: Judge,
    policy: str = "restrict",
    template: str | Template = "auto",
    soft: SoftMatch | None = None,
    audit: AuditLog | None = None,
    request_id: str = "",
    **generate_arguments: Any,
) -> Iterator[str]:
    """Yield the answer to one prompt in chunks; nothing is yielded before the gate has decided.

    An unflagged answer is released word by word. Of a flagged one, the end that could still grow into a forbidden
    phrase is held back until it cannot. Closing the iterator stops the generation.

    Args:
        model: A Hugging Face causal model, or a `LanguageModel`.
        tokenizer: Its tokenizer.
        prompt: A string, a chat or an example.
        guard: What must not be said.
        policy: ``restrict``, ``refuse`` or ``monitor``.
        template: As for `guard.generate`.
        soft: As for `guard.generate`.
        audit: Where to log the decision.
        request_id: For the log.
        **generate_arguments: Anything ``model.generate`` takes; beams and several sequences cannot be streamed.

    Raises:
        ConfigError: At the call, if an argument cannot go with a guard or with a stream.
    """
    checked = check_policy(policy)
    target = Target.of(model, tokenizer, template)
    refuse_unsupported(target.model, generate_arguments, streamer="the chunks of guard.stream")
    for name in ("num_beams", "num_return_sequences"):
        if int(setting(target.model, generate_arguments, name) or 1) > 1:
            raise ConfigError(
                f"{name} above 1 cannot be streamed: which text is given out is known at the end only; "
                "use guard.generate, or leave it at 1."
            )
    given = sorted({"mode", "input_ids", "attention_mask", "inputs"} & generate_arguments.keys())
    if given:
        raise ConfigError(
            f"guard.stream does not take {given[0]}; give a prompt, and use guard.generate for modes."
        )
    return _chunks(
        target, conversations([prompt])[0], guard, checked, soft, audit, request_id, generate_arguments
    )


async def _pass_on(chunks: Iterator[str]) -> AsyncIterator[str]:
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


def astream(
    model: Any, tokenizer: Any, prompt: Prompt, *, guard: Judge, **arguments: Any
) -> AsyncIterator[str]:
    """`stream` for an event loop: the same arguments and chunks; the model runs in a worker thread."""
    return _pass_on(stream(model, tokenizer, prompt, guard=guard, **arguments))


def _chunks(
    target: Target,
    messages: tuple[Message, ...],
    guard: Judge,
    policy: Policy,
    soft: SoftMatch | None,
    audit: AuditLog | None,
    request_id: str,
    arguments: dict[str, Any],
) -> Iterator[str]:
    with judged(guard, [messages], policy, audit=audit, request_ids=[request_id]) as (plans, answers):
        (plan,), (answer,) = plans, answers
        if plan.is_refused:
            answer.append(plan.refusal)
            yield plan.refusal
            return
        restriction = restriction_for(plan.decision, target.tokenizer, soft) if plan.is_restricted else None
        ends = eos_ids(target.model, target.tokenizer, arguments)
        writer = Writer(target.tokenizer, ends, restriction)
        run = _Run(target, plan, soft, arguments)
        try:
            for token in run:
                chunk = writer.write(token)
                answer[:] = [writer.released]
                if chunk:
                    yield chunk
                if writer.is_broken:
                    break
        finally:
            run.stop()
            plan.masked_steps = run.record.masked_steps(0, writer.tokens)
        is_refusal = writer.is_broken or run.record.is_dead_end(0, writer.tokens)
        last = plan.refusal if is_refusal and not writer.released else writer.finish()
        plan.fell_back = is_refusal
        answer[:] = [writer.released or last]
        if last:
            yield last


class Writer:
    """Turns arriving tokens into text that may leave.

    Args:
        tokenizer: The model's.
        ends: Ids that end the answer.
        restriction: What must not be said; ``None``: everything may.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int], restriction: Restriction | None) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(ends)
        self._restriction = restriction
        self.tokens: list[int] = []
        """Without the end token and what follows it."""
        self.released = ""
        self.is_broken = False
        """Whether the text says what it must not; nothing more is released."""
        self._is_over = False
        self._text = ""
        self._first = self._read = 0

    def write(self, token: int) -> str:
        """Take a token and return the text that may leave now."""
        self._is_over = self._is_over or token in self._ends
        if self._is_over or self.is_broken:
            return ""
        self.tokens.append(token)
        before, now = self._decode(self._first, self._read), self._decode(self._first, None)
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._text += now[len(before) :]
        self._first, self._read = self._read, len(self.tokens)
        return self._release(held=0 if self._restriction is None else self._restriction.held(self._text))

    def finish(self) -> str:
        """Return the rest of the text; white space at its end is left out."""
        if self.is_broken:
            return ""
        whole = self._decode(0, None)
        if whole.lstrip().startswith(self.released):
            self._text = whole
        return self._release(held=0)

    def _release(self, *, held: int) -> str:
        if self._restriction is not None and self._restriction.matches(self._text):
            self.is_broken = True
            return ""
        ready = self._text[: len(self._text) - held].strip()
        chunk = ready[len(self.released) :]
        self.released += chunk
        return chunk

    def _decode(self, first: int, last: int | None) -> str:
        return str(self._tokenizer.decode(self.tokens[first:last], skip_special_tokens=True))


class _Run(BaseStreamer, StoppingCriteria):  # type: ignore[misc]
    """One generation in a thread of its own: iterating gives its new tokens as they come."""

    def __init__(self, target: Target, plan: Plan, soft: SoftMatch | None, arguments: dict[str, Any]) -> None:
        self.record = MaskRecord()
        self._queue: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._has_prompt = False
        self._is_stopped = threading.Event()
        encoded = encode_prompts(target.tokenizer, target.template, [plan.messages])
        input_ids, mask = pad_left(encoded, pad_token_id(target.tokenizer))
        criteria = StoppingCriteriaList([*(arguments.get("stopping_criteria") or []), self])

        def work() -> None:
            try:
                decode(
                    target,
                    input_ids,
                    mask,
                    [plan],
                    {**arguments, "stopping_criteria": criteria},
                    streamer=self,
                    soft=soft,
                    record=self.record,
                )
                self._queue.put(None)
            except BaseException as error:
                self._queue.put(error)

        self._thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        self._thread.start()

    def put(self, value: Tensor) -> None:
        """Take the prompt first, then each new token."""
        if not self._has_prompt:
            self._has_prompt = True
            return
        for token in value.reshape(-1).tolist():
            self._queue.put(int(token))

    def end(self) -> None:
        """Nothing: the thread's own end is what counts."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Whether each row should stop: all of them, once the reader has gone."""
        return torch.full((len(input_ids),), self._is_stopped.is_set(), device=input_ids.device)

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """End the generation and wait for its thread."""
        self._is_stopped.set()
        self._thread.join()
