"""Which of Hugging Face's generation arguments cannot go with a guard, and why: refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.errors import ConfigError

__all__ = ["eos_ids", "num_sequences", "refuse_unsupported", "setting"]

_DRAFTS = "drafts several tokens at once, past the guard's check of each"
_SHOWS = "would return the scores of tokens that must not be said"
_REMOTE = "is decoded by a loop outside transformers, which the guard does not filter"
_UNSEEN = "puts something before the answer that the guard never saw"

_REASONS: dict[str, str] = {
    "assistant_model": _DRAFTS,
    "assistant_early_exit": _DRAFTS,
    "prompt_lookup_num_tokens": _DRAFTS,
    "use_mtp": _DRAFTS,
    "return_dict_in_generate": _SHOWS,
    "output_scores": _SHOWS,
    "output_logits": _SHOWS,
    "custom_generate": "replaces the loop the guard filters",
    "penalty_alpha": _REMOTE,
    "dola_layers": _REMOTE,
    "constraints": _REMOTE,
    "force_words_ids": _REMOTE,
    "past_key_values": _UNSEEN,
    "inputs_embeds": _UNSEEN,
    "token_healing": "rewrites the prompt after the guard has judged it",
}
"""Argument to what it does; each is refused when it is set."""


def setting(model: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """Return a generation setting as ``model.generate`` would resolve it."""
    if arguments.get(name) is not None:
        return arguments[name]
    given = arguments.get("generation_config")
    for config in (given, model.generation_config):
        value = getattr(config, name, None)
        if value is not None:
            return value
    return None


def refuse_unsupported(model: Any, arguments: Mapping[str, Any], *, streamer: str = "guard.stream") -> None:
    """Refuse what would get past the filter.

    Args:
        model: The Hugging Face model.
        arguments: For ``model.generate``.
        streamer: What to use in place of a ``streamer``.

    Raises:
        ConfigError: If an argument cannot go with a guard; it says which and why.
    """
    for name, reason in _REASONS.items():
        value = setting(model, arguments, name)
        if value is not None and not (isinstance(value, (int, float, str, list)) and not value):
            raise ConfigError(f"{name} {reason}; generate without it.")
    if (setting(model, arguments, "num_beam_groups") or 1) > 1:
        raise ConfigError(f"num_beam_groups {_REMOTE}; generate without it.")
    if setting(model, arguments, "cache_implementation") == "paged":
        raise ConfigError(
            "cache_implementation='paged' means continuous batching, where a processor sees the current token "
            "alone and the filter would silently fail; use another cache."
        )
    if arguments.get("streamer") is not None:
        raise ConfigError(
            f"A streamer would show text before a refusal or a masked span is settled; use {streamer}."
        )


def num_sequences(model: Any, arguments: Mapping[str, Any]) -> int:
    """Return the texts for each prompt."""
    return int(setting(model, arguments, "num_return_sequences") or 1)


def eos_ids(model: Any, tokenizer: Any, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end an answer."""
    given = setting(model, arguments, "eos_token_id")
    if hasattr(given, "tolist"):
        given = given.tolist()
    ids = given if isinstance(given, (list, tuple)) else [given]
    return tuple(dict.fromkeys(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None))
