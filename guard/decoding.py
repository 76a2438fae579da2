"""`generate`: Hugging Face's own generation behind a guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.data.collate import encode_prompts, pad_left, pad_token_id
from eval.errors import ConfigError
from eval.models.templates import Template, resolve_template
from eval.types import Prompt, conversation
from guard.config import check_policy
from guard.core import Guard
from guard.gate import Decision
from guard.processor import GuardLogitsProcessor
from guard.refusals import refusal_for

__all__ = ["generate"]

_OURS = frozenset({"inputs", "input_ids", "attention_mask", "inputs_embeds"})
_DRAFTING = (
    "assistant_model",
    "assistant_early_exit",
    "prompt_lookup_num_tokens",
    "use_mtp",
)
_LEAKING = ("return_dict_in_generate", "output_scores", "output_logits")


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    guard: Guard,
    policy: str = "restrict",
    template: str | Template = "auto",
    **generate_arguments: Any,
) -> list[str] | list[list[str]]:
    """Generate with ``model.generate``; flagged prompts are restricted or refused, others come out as without.

    Args:
        model: A Hugging Face causal model.
        tokenizer: Its tokenizer.
        prompts: Strings, chats or examples.
        guard: What must not be said.
        policy: ``restrict``, ``refuse`` (the model does not see flagged prompts) or ``monitor`` (nothing changes).
        template: How a prompt is put to the model; ``auto``: the tokenizer's chat template where it has one.
        **generate_arguments: Anything ``model.generate`` takes, except what is named under Raises.

    Returns:
        One text for each prompt; a list of texts for each where ``num_return_sequences`` is above 1.

    Raises:
        ConfigError: If the policy is unknown, or an argument cannot go with a guard: assisted or speculative
            decoding, a custom loop, several streams at once, returned scores (they would show what is masked),
            or tensors in place of prompts.
    """
    check_policy(policy)
    _refuse_unsupported(model, prompts, generate_arguments)
    conversations = [conversation(prompt) for prompt in prompts]
    if not conversations:
        return []
    decisions = guard.check_many(conversations)
    config = generate_arguments.get("generation_config") or model.generation_config
    num = int(generate_arguments.get("num_return_sequences") or config.num_return_sequences or 1)
    texts: list[list[str]] = [[] for _ in conversations]
    passed: list[int] = []
    for i, (messages, decision) in enumerate(zip(conversations, decisions, strict=True)):
        if policy == "refuse" and decision.flagged:
            turns = [message.content for message in messages if message.role == "user"]
            texts[i] = [refusal_for(turns, guard.refusals)] * num
        else:
            passed.append(i)
    if passed:
        encoded = encode_prompts(
            tokenizer, resolve_template(template, tokenizer), [conversations[i] for i in passed]
        )
        active = [decisions[i] for i in passed] if policy == "restrict" else []
        rows = _run(model, tokenizer, encoded, active, generate_arguments)
        for place, i in enumerate(passed):
            texts[i] = rows[place * num : (place + 1) * num]
    return [row[0] for row in texts] if num == 1 else texts


def _run(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decisions: Sequence[Decision],
    arguments: dict[str, Any],
) -> list[str]:
    input_ids, mask = pad_left(prompts, pad_token_id(tokenizer))
    device = next(model.get_input_embeddings().parameters()).device
    arguments = dict(arguments)
    processors = list(arguments.pop("logits_processor", None) or [])
    if any(decision.flagged for decision in decisions):
        processors.append(GuardLogitsProcessor(decisions, tokenizer, input_ids.shape[1]))
    arguments.setdefault("pad_token_id", pad_token_id(tokenizer))
    out = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=mask.to(device),
        logits_processor=processors,
        **arguments,
    )
    texts = tokenizer.batch_decode(out[:, input_ids.shape[1] :], skip_special_tokens=True)
    return [str(text).strip() for text in texts]


def _refuse_unsupported(model: Any, prompts: Sequence[Prompt], arguments: dict[str, Any]) -> None:
    if isinstance(prompts, str):
        raise ConfigError("prompts is a single string; give a list of prompts.")
    given = sorted(_OURS & arguments.keys())
    if given:
        raise ConfigError(
            f"guard.generate builds {', '.join(given)} from the prompts; give prompts instead of tensors."
        )
    configs = [c for c in (arguments.get("generation_config"), model.generation_config) if c is not None]

    def setting(name: str) -> Any:
        if name in arguments:
            return arguments[name]
        return next((getattr(c, name) for c in configs if getattr(c, name, None)), None)

    for name in _DRAFTING:
        if setting(name):
            raise ConfigError(
                f"{name} drafts several tokens at once, past the guard's check of each; generate without it."
            )
    for name in _LEAKING:
        if setting(name):
            raise ConfigError(
                f"{name} would return the scores of tokens that must not be said; generate without it."
            )
    if arguments.get("custom_generate") is not None:
        raise ConfigError("custom_generate replaces the loop the guard filters; generate without it.")
    if arguments.get("streamer") is not None:
        raise ConfigError(
            "A streamer would show text before a refusal or a masked span is settled; generate without it."
        )
