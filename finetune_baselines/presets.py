"""Named settings: ``paper`` (as published, for models of billions of parameters) and ``scratch`` (for small ones).

The paper's learning rates move a model of a few million parameters by next to nothing. ``scratch`` was tuned on
the embedded benchmark's world seed 1, where target and oracle are small models trained from nothing, to reach a
forget quality above 0.05 with the highest model utility; results are reported on seed 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from eval.errors import UnknownNameError
from finetune_baselines.recipes import RECIPES, LoraSettings, Recipe
from finetune_baselines.training import TrainSettings

__all__ = ["PRESETS", "SCRATCH_LIMIT", "Preset", "auto_preset", "preset"]

SCRATCH_LIMIT = 50_000_000
"""Models with fewer parameters get the preset ``scratch``."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a run starts from before a user's overrides."""

    name: str
    recipe: Recipe
    train: TrainSettings
    lora: LoraSettings


_SMALL = TrainSettings(
    learning_rate=3e-4, epochs=5, batch_size=16, warmup_epochs=0.0, weight_decay=0.0, schedule="constant"
)
_SCRATCH: Mapping[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = MappingProxyType({})
"""(method, parametrization) to changes of `_SMALL` and of the recipe."""


def auto_preset(num_parameters: int) -> str:
    """Return the preset that fits a model's size."""
    return "scratch" if num_parameters < SCRATCH_LIMIT else "paper"


def preset(name: str, method: str, parametrization: str) -> Preset:
    """Return the settings of ``method`` under a preset.

    Raises:
        UnknownNameError: If there is no such preset.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    recipe = RECIPES[method]
    if name == "paper":
        train = recipe.paper_settings
        if parametrization == "lora":
            train = replace(train, learning_rate=recipe.paper_lora_learning_rate)
        return Preset(name=name, recipe=recipe, train=train, lora=recipe.paper_lora)
    train_changes, recipe_changes = _SCRATCH.get((method, parametrization), ({}, {}))
    if parametrization == "lora":
        train_changes = {"learning_rate": 3e-3, **train_changes}
    return Preset(
        name=name,
        recipe=replace(recipe, **recipe_changes),
        train=replace(_SMALL, **train_changes),
        lora=LoraSettings(rank=16, alpha=32.0),
    )


PRESETS = ("paper", "scratch")
"""Names of the presets."""
