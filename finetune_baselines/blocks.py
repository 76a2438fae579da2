"""What a decoder block puts out, and which parameters of the blocks train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.blocks import decoder_blocks
from finetune_baselines.terms import TERMS

if TYPE_CHECKING:
    from finetune_baselines.recipes import Recipe

__all__ = ["captured", "restrict_to_recipe"]


@contextmanager
def captured(model: Any, layer: int | None) -> Iterator[list[Tensor]]:
    """Collect the output of one decoder block, shape ``(B, T, D)``, of each forward inside the block.

    Args:
        model: The causal model.
        layer: Index of the decoder block; ``None``: nothing is collected.

    Raises:
        ConfigError: If the model is not so deep.
    """
    states: list[Tensor] = []
    if layer is None:
        yield states
        return
    blocks = decoder_blocks(model)[1]
    if layer >= len(blocks):
        raise ConfigError(f"Layer {layer} asked for, but this model has layers 0 to {len(blocks) - 1}.")

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handle = blocks[layer].register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def restrict_to_recipe(model: Any, recipe: Recipe) -> None:
    """Freeze what a recipe does not train: RMU trains one kind of module in three blocks, whatever the adapter.

    Args:
        model: Ready to train; its ``requires_grad`` flags are changed in place.
        recipe: Names the modules, if it names any.

    Raises:
        ConfigError: If nothing that could train is left.
    """
    if not any(TERMS[use.loss].trains for use in recipe.active):
        return
    path, blocks = decoder_blocks(model)
    uses = [(use, TERMS[use.loss].trains) for use in recipe.active]
    parts = [trains(recipe.get(TERMS[use.loss].options), len(blocks)) for use, trains in uses if trains]
    part = next((part for part in parts if part is not None), None)
    if part is None:
        return
    chosen, modules = part
    prefixes = tuple(f"{path}.{i}.{name.strip()}." for i in chosen for name in modules.split(","))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith(prefixes))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        names = [name for name, module in blocks[0].named_modules() if isinstance(module, nn.Linear)]
        raise ConfigError(
            f"{recipe.name} trains {modules} in blocks {min(chosen)} to {max(chosen)}, but nothing there can be "
            f"trained; a block of this model holds: {', '.join(names)}."
        )
