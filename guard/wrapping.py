"""`wrap`: a drop-in for a model's ``generate``, tensors in and tensors out, behind a guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eval.data.collate import pad_token_id
from eval.errors import ConfigError
from eval.models.templates import Template
from eval.types import Message
from guard.arguments import eos_ids, num_sequences, refuse_unsupported
from guard.audit import AuditLog, AuditRecord
from guard.config import Policy, check_policy
from guard.deadline import Judge
from guard.decoding import Target, decode
from guard.plan import Plan, judged
from guard.processor import MaskRecord
from guard.soft import SoftMatch
from guard.turns import TurnRule

__all__ = ["WrappedModel", "wrap"]

_PASSED_ON = frozenset(
    {
        "config",
        "device",
        "dtype",
        "generation_config",
        "name_or_path",
        "can_generate",
        "main_input_name",
        "hf_device_map",
    }
)


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    guard: Judge,
    policy: str = "restrict",
    template: str | Template = "auto",
    soft: SoftMatch | None = None,
    audit: AuditLog | None = None,
) -> WrappedModel:
    """Return a drop-in for ``model`` whose ``generate(input_ids, ...)`` is filtered.

    Args:
        model: A Hugging Face causal model, or a `LanguageModel`.
        tokenizer: Its tokenizer.
        guard: What must not be said.
        policy: ``restrict``, ``refuse`` or ``monitor``.
        template: How the prompts are rendered before they are tokenised; the user's turns are recovered by it.
        soft: As for `guard.generate`.
        audit: Where to log each decision.

    Raises:
        ConfigError: If the policy is unknown or the template does not show a user turn as it was written.
    """
    target = Target.of(model, tokenizer, template)
    return WrappedModel(target, guard, check_policy(policy), soft, audit)


class WrappedModel:
    """What `wrap` returns. It has ``generate`` and the model's description; its raw outputs are not given out."""

    def __init__(
        self,
        target: Target,
        guard: Judge,
        policy: Policy,
        soft: SoftMatch | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._target = target
        self._guard = guard
        self._policy: Policy = policy
        self._soft = soft
        self._audit = audit
        self._rule = TurnRule.of(target.template, target.tokenizer)

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(self._target.model, name)
        raise AttributeError(
            f"A model wrapped by a guard has no {name!r}: only generate() is filtered; use the model itself for it."
        )

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse: logits would show what is masked.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "A model wrapped by a guard gives out no logits, which would show what is masked; use generate()."
        )

    def eval(self) -> WrappedModel:
        """Put the model in evaluation mode; return self."""
        self._target.model.eval()
        return self

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        request_ids: Sequence[str] = (),
        **generate_arguments: Any,
    ) -> Tensor:
        """Generate as the model does; flagged prompts are restricted or refused.

        The user's turns are recovered from the tokens by the template's rule. A prompt in which they cannot be
        found is refused with an error: it is never generated unjudged.

        Args:
            input_ids: Left-padded prompts, shape ``(B, T)``.
            attention_mask: Shape ``(B, T)``; ``None``: pad tokens at the left are padding.
            request_ids: One for each prompt, for the log.
            **generate_arguments: Anything ``model.generate`` takes, except what `guard.generate` refuses.

        Returns:
            What ``model.generate`` returns: prompt and answer, shape ``(B * num_return_sequences, T + N)``.

        Raises:
            ConfigError: If a prompt does not follow the template, or an argument cannot go with a guard.
        """
        target = self._target
        given = generate_arguments.pop("inputs", None)
        input_ids = given if input_ids is None else input_ids
        refuse_unsupported(target.model, generate_arguments)
        if not isinstance(input_ids, Tensor) or input_ids.ndim != 2:
            raise ConfigError(
                "generate needs input_ids, a tensor of shape (B, T): the guard judges the prompt."
            )
        pad = pad_token_id(target.tokenizer)
        if attention_mask is None:
            attention_mask = ((input_ids != pad).cumsum(1) > 0).long()
        conversations = self._conversations(input_ids, attention_mask, request_ids)
        generate_arguments.setdefault("pad_token_id", pad)
        with judged(self._guard, conversations, self._policy, audit=self._audit, request_ids=request_ids) as (
            plans,
            answers,
        ):
            num = num_sequences(target.model, generate_arguments)
            if all(plan.is_refused for plan in plans):
                rows, record = input_ids.new_zeros((len(plans) * num, 0)), MaskRecord()
            else:
                blank = [plan.is_refused for plan in plans]
                rows, record = decode(
                    target, input_ids, attention_mask, plans, generate_arguments, blank=blank, soft=self._soft
                )
            rows = self._settled(rows, plans, record, num, generate_arguments)
            for i, text in enumerate(target.tokenizer.batch_decode(rows, skip_special_tokens=True)):
                answers[i // num].append(text)
        return torch.cat([input_ids.to(rows.device).repeat_interleave(num, dim=0), rows], dim=1)

    def _conversations(
        self, input_ids: Tensor, mask: Tensor, request_ids: Sequence[str]
    ) -> list[tuple[Message, ...]]:
        try:
            texts = [
                self._target.tokenizer.decode(row[kept == 1], clean_up_tokenization_spaces=False)
                for row, kept in zip(input_ids, mask, strict=True)
            ]
            return [self._rule.user_turns(str(text)) for text in texts]
        except ConfigError:
            for i in range(len(input_ids) if self._audit is not None else 0):
                assert self._audit is not None
                name = request_ids[i] if i < len(request_ids) else ""
                self._audit.record(
                    AuditRecord(
                        action="failed",
                        policy=self._policy,
                        request_id=name,
                        reason="the user's turns could not be recovered",
                    )
                )
            raise

    def _settled(
        self,
        rows: Tensor,
        plans: Sequence[Plan],
        record: MaskRecord,
        num: int,
        arguments: dict[str, Any],
    ) -> Tensor:
        """Put refusals where texts were refused; leave all other rows as they came."""
        target = self._target
        ends = eos_ids(target.model, target.tokenizer, arguments)
        said: list[list[int]] = []
        for i, tokens in enumerate(rows.tolist()):
            plan = plans[i // num]
            end = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
            text = target.tokenizer.decode(tokens[:end], skip_special_tokens=True)
            is_changed = plan.settle(text, tokens[:end], record, i // num, target.tokenizer) != text
            if is_changed:
                refusal = target.tokenizer(plan.refusal, add_special_tokens=False)["input_ids"]
                tokens = [*refusal, *ends[:1]]
            said.append(tokens)
        pad = int(arguments["pad_token_id"])
        width = max(map(len, said))
        padded = [[*tokens, *[pad] * (width - len(tokens))] for tokens in said]
        return torch.tensor(padded, dtype=rows.dtype, device=rows.device)
