"""`GuardedModel`: any language model behind a guard, scored and sampled through the one seam."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eval.artifacts import fingerprint
from eval.errors import ConfigError
from eval.models.language_model import Generation, GenerationOptions, LanguageModel
from eval.types import Batch, Message, Progress, Prompt, conversation
from guard.audit import AuditLog, AuditRecord
from guard.config import Policy, check_policy
from guard.core import Guard
from guard.deadline import CheckError, Deadline, Judge
from guard.gate import Decision
from guard.plan import Plan, judged
from guard.processor import GuardLogitsProcessor, MaskRecord
from guard.restriction import restriction_for
from guard.soft import SoftMatch

__all__ = ["PENALTY", "GuardedModel"]

PENALTY = 10.0
"""Nats taken from the logit of a banned token when answers are scored: fixed, never tuned.

Decoding bans outright. Scoring needs a finite value, since an infinite one makes every log-ratio of an answer
that contains a phrase undefined; a token thus keeps about exp(-10) of its odds.
"""


class _Run(NamedTuple):
    """One call of `GuardedModel.generate`: its prompts are judged once, before the model starts."""

    owner: GuardedModel
    decisions: Mapping[tuple[Message, ...], Decision]
    record: MaskRecord


_IS_OFF: ContextVar[bool] = ContextVar("guard_is_off", default=False)
_RUN: ContextVar[_Run | None] = ContextVar("guard_run", default=None)


class GuardedModel(LanguageModel):
    """A language model whose output is filtered; its weights are untouched.

    Args:
        inner: The model to filter: plain, with an adapter, or edited.
        guard: What must not be said; a `Deadline` bounds the check of what is generated, and fails closed.
        policy: ``restrict``: flagged prompts are answered without the phrases; ``refuse``: they get a refusal
            and the model does not run; ``monitor``: nothing changes. Answers are scored alike under ``restrict``
            and ``refuse``: a refusal says nothing about the probability of an answer.
        name: For reports; ``None``: the inner model's name and the policy.
        soft: As for `guard.generate`; it does not enter scores, whose penalty is fixed.
        audit: Where to log the decision on each prompt that is answered; scoring is not logged.
    """

    def __init__(
        self,
        inner: LanguageModel,
        guard: Judge,
        *,
        policy: str = "restrict",
        name: str | None = None,
        soft: SoftMatch | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self.soft = soft
        self.audit = audit
        self.inner = inner
        self.guard = guard
        self.policy: Policy = check_policy(policy)
        super().__init__(
            inner.model,
            inner.tokenizer,
            template=inner.template,
            name=name or f"{inner.name}+guard-{policy}",
            kind="suppression",
            ou_compat=inner.ou_compat,
        )

    @property
    def is_filtering(self) -> bool:
        """Whether the guard changes anything now."""
        return self.policy != "monitor" and not _IS_OFF.get()

    def forward_context(self, prompt_end: Tensor) -> AbstractContextManager[Any]:
        """The inner model's."""
        return self.inner.forward_context(prompt_end)

    def processors(self, prompts: Sequence[tuple[Message, ...]], prompt_length: int) -> list[Any]:
        """The inner model's, then the guard's where a prompt of the batch is flagged."""
        processors = self.inner.processors(prompts, prompt_length)
        if not self.is_filtering:
            return processors
        run = _RUN.get()
        if run is None or run.owner is not self:
            decisions, record = self.guard.check_many(prompts), None
        else:
            decisions, record = [run.decisions[prompt] for prompt in prompts], run.record
        filtering = GuardLogitsProcessor(
            decisions,
            self.tokenizer,
            prompt_length,
            eos_ids=self.eos_ids,
            record=record,
            keys=list(prompts),
            soft=self.soft,
        )
        return [*processors, filtering] if filtering.is_active else processors

    def answer_logits(self, batch: Batch, *, module: nn.Module | None = None) -> Tensor:
        """Return the inner model's logits less `PENALTY` at the tokens the filter would ban, shape ``(N, V)``.

        The banned tokens of a position follow from the answer before it, as in decoding. Where a prompt can
        only be refused, every token of the answer bears the penalty.

        Raises:
            CheckError: If a `Deadline` passed before a prompt was judged: a score must not depend on that.
        """
        logits = self.inner.answer_logits(batch, module=module)
        if not self.is_filtering:
            return logits
        decisions = self.guard.check_many(batch.messages)
        failure = next((decision.failure for decision in decisions if decision.failure), "")
        if failure:
            raise CheckError(
                f"A prompt could not be judged ({failure}), so its answers cannot be scored behind the filter; score "
                "with the guard itself, without a deadline."
            )
        if not any(decision.flagged for decision in decisions):
            return logits
        penalty = logits.new_zeros(logits.shape)
        position = 0
        for decision, labels in zip(decisions, batch.labels.tolist(), strict=True):
            answer = [token for token in labels if token != -100]
            restriction = restriction_for(decision, self.tokenizer)
            for i in range(len(answer) if restriction is not None else 0):
                assert restriction is not None
                ids = (
                    [answer[i]]
                    if restriction.bans_all
                    else restriction.banned(answer[:i], logits[position + i])
                )
                index = torch.as_tensor(ids, device=logits.device)
                penalty[position + i, index[index < logits.shape[1]]] = PENALTY
            position += len(answer)
        return logits - penalty

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt through the filter; ``masked_steps`` counts where it changed the choice."""
        conversations = [conversation(prompt) for prompt in prompts]
        if _IS_OFF.get() or (self.policy == "monitor" and self.audit is None):
            self._log_skipped(conversations)
            return super().generate(conversations, options, progress=progress)
        with judged(self.guard, conversations, self.policy, audit=self.audit) as (plans, answers):
            record = MaskRecord()
            token = _RUN.set(_Run(self, {plan.messages: plan.decision for plan in plans}, record))
            try:
                passed = [plan.messages for plan in plans if not plan.is_refused]
                found = iter(super().generate(passed, options, progress=progress))
            finally:
                _RUN.reset(token)
            said = [self._said(plan, None if plan.is_refused else next(found), record) for plan in plans]
            for answer, generation in zip(answers, said, strict=True):
                answer.append(generation.text)
        return said

    def _log_skipped(self, conversations: Sequence[tuple[Message, ...]]) -> None:
        for messages in conversations if self.audit is not None else ():
            assert self.audit is not None
            entry = AuditRecord(action="skipped", policy=self.policy, reason="the filter was switched off")
            self.audit.record(entry, messages=messages)

    def _said(self, plan: Plan, answer: Generation | None, record: MaskRecord) -> Generation:
        if answer is not None:
            text = plan.settle(answer.text, answer.token_ids, record, plan.messages, self.tokenizer)
            if not plan.fell_back:
                return dataclasses.replace(answer, text=text, masked_steps=plan.masked_steps)
        ids = self.tokenizer(plan.refusal, add_special_tokens=False)["input_ids"]
        return Generation(text=plan.refusal, token_ids=tuple(ids), is_finished=True)

    @contextmanager
    def edit_disabled(self) -> Iterator[None]:
        """Take the filter off inside the block, and whatever the inner model carries."""
        token = _IS_OFF.set(True)
        try:
            with self.inner.edit_disabled():
                yield
        finally:
            _IS_OFF.reset(token)

    @property
    def state_digest(self) -> str | None:
        """The inner model's state and everything the guard decides by; none where words are matched softly, or
        where more than a guard decides, such as a deadline.
        """
        state, guard = self.inner.state_digest, self.guard
        if state is None or self.soft is not None or not isinstance(guard, Guard):
            return None
        rules = [
            guard.store.entries,
            guard.store.all_innocents()[::2],
            guard.classifier,
            guard.settings,
            guard.allowed,
        ]
        return fingerprint([state, self.policy, guard.encoder.identity, guard.refusals, rules])

    def trainable_base(self) -> Any:
        """The inner model's."""
        return self.inner.trainable_base()

    def with_base(self, base: LanguageModel) -> GuardedModel:
        """Return the same filter over other weights."""
        return GuardedModel(
            self.inner.with_base(base), self.guard, policy=self.policy, soft=self.soft, audit=self.audit
        )

    def save(self, directory: Path | str) -> None:
        """Save the inner model, and the guard in a folder ``guard`` beside it; a deadline is not kept.

        Raises:
            ConfigError: If what decides is no `Guard`, with a deadline or without.
        """
        guard = self.guard
        while isinstance(guard, Deadline):
            guard = guard.guard
        if not isinstance(guard, Guard):
            raise ConfigError(
                f"Only a guard can be saved, and this model is filtered by a {type(guard).__name__}; save the inner "
                "model instead."
            )
        self.inner.save(directory)
        guard.save(Path(directory) / "guard")
