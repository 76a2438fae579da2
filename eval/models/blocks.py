"""Where the decoder blocks of a model are, whatever its family calls them."""

from __future__ import annotations

from typing import Any

from torch import nn

from eval.errors import ConfigError

__all__ = ["decoder_blocks", "hidden_size"]


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def hidden_size(model: Any) -> int:
    """Return the width ``D`` of the hidden states."""
    return int(_text_config(model).hidden_size)


def decoder_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the module path and the list of the decoder blocks.

    They are the list of as many modules as the text configuration counts layers, inside the text decoder
    (so that a vision tower of equal depth is never taken for it).

    Raises:
        ConfigError: If the model has no such list.
    """
    depth = int(_text_config(model).num_hidden_layers)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    inside = {id(module) for module in decoder.modules()} if isinstance(decoder, nn.Module) else None
    for path, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == depth
            and (inside is None or id(module) in inside)
        ):
            return path, module
    raise ConfigError(
        f"{type(model).__name__} has no list of {depth} decoder blocks; use a decoder-only causal language model."
    )
