"""`generate`: Hugging Face's own generation behind a guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from eval.data.collate import encode_prompts, pad_left, pad_token_id
from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.models.templates import Template, resolve_template
from eval.types import Message, Prompt
from guard.arguments import eos_ids, num_sequences, refuse_unsupported, setting
from guard.audit import AuditLog
from guard.beam import BeamSearch
from guard.config import check_policy
from guard.conversation import conversations
from guard.deadline import Judge
from guard.gate import Decision
from guard.plan import Plan, judged
from guard.processor import GuardLogitsProcessor, MaskRecord
from guard.soft import SoftMatch

__all__ = ["MODES", "Mode", "Target", "agenerate", "continuations", "decode", "generate"]

Mode = Literal["mask", "beam"]
"""``mask``: the model's own decoding with banned tokens taken out; ``beam``: the paper's beam search with token and
sentence-encoder costs, for reproduction, slow."""

MODES: tuple[str, ...] = get_args(Mode)
"""Every mode of `generate`."""
_OURS = frozenset({"inputs", "input_ids", "attention_mask"})


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    guard: Judge,
    policy: str = "restrict",
    mode: str = "mask",
    template: str | Template = "auto",
    soft: SoftMatch | None = None,
    audit: AuditLog | None = None,
    request_ids: Sequence[str] = (),
    **generate_arguments: Any,
) -> list[str] | list[list[str]]:
    """Generate with ``model.generate``; flagged prompts are restricted or refused, others come out as without.

    Args:
        model: A Hugging Face causal model, with an adapter or without, or a `LanguageModel` such as a GRUN edit
            (whose own processors and edit then apply too).
        tokenizer: Its tokenizer.
        prompts: Strings, chats or examples.
        guard: What must not be said.
        policy: ``restrict``, ``refuse`` (the model does not see flagged prompts) or ``monitor`` (nothing changes).
        mode: ``mask``, or ``beam`` for the paper's beam search on flagged prompts (slow).
        template: How a prompt is put to the model; ``auto``: the tokenizer's chat template where it has one.
        soft: Keeps words near the phrases back too; ``None``: the phrases alone.
        audit: Where to log each decision.
        request_ids: One for each prompt, for the log.
        **generate_arguments: Anything ``model.generate`` takes, except what is named under Raises.

    Returns:
        One text for each prompt; a list of texts for each where ``num_return_sequences`` is above 1.

    Raises:
        ConfigError: If the policy or mode is unknown, or an argument cannot go with a guard: assisted or
            speculative decoding, continuous batching, a custom loop, a streamer, returned scores (they would
            show what is masked), or tensors in place of prompts; or if something is no prompt.
    """
    checked = check_policy(policy)
    if mode not in MODES:
        raise ConfigError(f"Unknown guard mode {mode!r}; use one of {', '.join(MODES)}.")
    given = sorted(_OURS & generate_arguments.keys())
    if given:
        raise ConfigError(
            f"guard.generate builds {', '.join(given)} from the prompts; give prompts, or use guard.wrap for tensors."
        )
    target = Target.of(model, tokenizer, template)
    refuse_unsupported(target.model, generate_arguments)
    messages = conversations(prompts)
    if not messages:
        return []
    num = num_sequences(target.model, generate_arguments)
    with judged(guard, messages, checked, audit=audit, request_ids=request_ids) as (plans, answers):
        if all(plan.is_refused for plan in plans):
            texts = [[plan.refusal] * num for plan in plans]
        else:
            encoded = encode_prompts(tokenizer, target.template, messages)
            input_ids, mask = pad_left(encoded, pad_token_id(tokenizer))
            rows = continuations(
                target, input_ids, mask, plans, generate_arguments, guard=guard, mode=mode, soft=soft
            )
            texts = [rows[i * num : (i + 1) * num] for i in range(len(plans))]
        for answer, new in zip(answers, texts, strict=True):
            answer.extend(new)
    return [row[0] for row in texts] if num == 1 else texts


async def agenerate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, guard: Judge, **arguments: Any
) -> list[str] | list[list[str]]:
    """`generate` in a worker thread, for an event loop that must go on meanwhile; the same arguments."""
    return await asyncio.to_thread(generate, model, tokenizer, prompts, guard=guard, **arguments)


class Target(NamedTuple):
    """What generates: a Hugging Face model, and what an edit wraps around it."""

    model: Any
    tokenizer: Any
    template: Template
    forward_context: Callable[[Tensor], AbstractContextManager[Any]]
    processors: Callable[[Sequence[tuple[Message, ...]], int], list[Any]]

    @classmethod
    def of(cls, model: Any, tokenizer: Any, template: str | Template = "auto") -> Target:
        """Return the target of a Hugging Face model (changed in nothing) or of a `LanguageModel`.

        Raises:
            ConfigError: If a `LanguageModel` is given another template than its own.
        """
        if isinstance(model, LanguageModel):
            if template != "auto":
                raise ConfigError("A LanguageModel brings its own template; leave template='auto'.")
            return cls(model.model, tokenizer, model.template, model.forward_context, model.processors)
        resolved = resolve_template(template, tokenizer)
        return cls(model, tokenizer, resolved, lambda prompt_end: nullcontext(), lambda prompts, width: [])

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = next(self.model.get_input_embeddings().parameters()).device
        return device


def continuations(
    target: Target,
    input_ids: Tensor,
    mask: Tensor,
    plans: Sequence[Plan],
    arguments: Mapping[str, Any],
    *,
    guard: Judge,
    mode: str = "mask",
    soft: SoftMatch | None = None,
) -> list[str]:
    """Continue left-padded prompts as their plans say; return the settled texts, ``num_return_sequences`` of each.

    Rows without an answer of their own stay in the batch, blanked and ended at once, so that the other rows come
    out bit for bit as without a guard, sampled ones included.

    Args:
        target: What generates.
        input_ids: Shape ``(B, T)``.
        mask: Shape ``(B, T)``.
        plans: One for each row; they learn their masked steps.
        arguments: For ``model.generate``, checked already.
        guard: Whose encoder ``mode="beam"`` asks.
        mode: One of `MODES`.
        soft: As for `generate`; ``mode="beam"`` has its own soft match.
    """
    num = num_sequences(target.model, arguments)
    apart = [mode == "beam" and plan.is_restricted and not plan.is_refused for plan in plans]
    texts: list[list[str]] = [[plan.refusal] * num for plan in plans]
    if not all(is_apart or plan.is_refused for is_apart, plan in zip(apart, plans, strict=True)):
        blank = [is_apart or plan.is_refused for is_apart, plan in zip(apart, plans, strict=True)]
        rows, record = decode(target, input_ids, mask, plans, arguments, blank=blank, soft=soft)
        settled = _settled(target, rows, plans, record, arguments)
        texts = [settled[i * num : (i + 1) * num] for i in range(len(plans))]
    for i in (i for i, is_apart in enumerate(apart) if is_apart):
        search = BeamSearch(guard.encoder, plans[i].decision, target.tokenizer)
        width = int(setting(target.model, arguments, "num_beams") or 1)
        beams = {"num_beams": width if width > 1 else search.settings.num_beams}
        row, own = input_ids[i : i + 1, mask[i] == 1], mask[i : i + 1, mask[i] == 1]
        rows, record = decode(
            target, row, own, plans[i : i + 1], {**arguments, **beams, "custom_generate": search}
        )
        texts[i] = _settled(target, rows, plans[i : i + 1], record, arguments)
    return [text for row in texts for text in row]


def decode(
    target: Target,
    input_ids: Tensor,
    mask: Tensor,
    plans: Sequence[Plan],
    arguments: Mapping[str, Any],
    *,
    blank: Sequence[bool] = (),
    streamer: Any = None,
    soft: SoftMatch | None = None,
    record: MaskRecord | None = None,
) -> tuple[Tensor, MaskRecord]:
    """Run ``model.generate`` behind the processor.

    Returns:
        The new ids of each row, shape ``(B * num_return_sequences, N)``, and where the filter changed the choice.
    """
    model, tokenizer, width = target.model, target.tokenizer, input_ids.shape[1]
    kept = dict(arguments)
    kept.setdefault("pad_token_id", pad_token_id(tokenizer))
    if setting(model, kept, "stop_strings"):
        kept.setdefault("tokenizer", tokenizer)
    if streamer is not None:
        kept["streamer"] = streamer
    ended = Decision(
        flagged=True, score=1.0, threshold=0.0
    )  # names nothing to leave out: everything is banned
    free = Decision(flagged=False, score=0.0, threshold=1.0)
    input_ids = input_ids.clone()
    decisions: list[Decision] = []
    for i, plan in enumerate(plans):
        is_blank = bool(blank) and blank[i]
        if is_blank:
            input_ids[i] = kept["pad_token_id"]
        decisions.append(ended if is_blank else plan.decision if plan.is_restricted else free)
    processor = GuardLogitsProcessor(
        decisions, tokenizer, width, eos_ids=eos_ids(model, tokenizer, arguments), record=record, soft=soft
    )
    processors = target.processors([plan.messages for plan in plans], width)
    processors = [*processors, *(kept.pop("logits_processor", None) or [])]
    if processor.is_active:
        processors.append(processor)
    copies = max(int(setting(model, kept, "num_beams") or 1), num_sequences(model, kept))
    prompt_end = torch.full((len(plans) * copies,), width, device=target.device)
    with target.forward_context(prompt_end):
        out = model.generate(
            input_ids=input_ids.to(target.device),
            attention_mask=mask.to(target.device),
            logits_processor=processors,
            **kept,
        )
    return out[:, width:], processor.record


def _settled(
    target: Target, rows: Tensor, plans: Sequence[Plan], record: MaskRecord, arguments: Mapping[str, Any]
) -> list[str]:
    ends = set(eos_ids(target.model, target.tokenizer, arguments))
    per_prompt = len(rows) // len(plans)
    texts: list[str] = []
    for i, text in enumerate(target.tokenizer.batch_decode(rows, skip_special_tokens=True)):
        tokens = rows[i].tolist()
        end = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
        prompt = i // per_prompt
        texts.append(plans[prompt].settle(str(text).strip(), tokens[:end], record, prompt, target.tokenizer))
    return texts
