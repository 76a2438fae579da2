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
    learning_rate=1e-3, epochs=5, batch_size=16, warmup_epochs=0.0, weight_decay=0.0, schedule="constant"
)
_SCRATCH: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = MappingProxyType(
    {
        "ga": ({"learning_rate": 7.5e-4}, {"max_forget_loss": 4.0}),
        "graddiff": ({"epochs": 8}, {"max_forget_loss": 3.0}),
        "kl-min": ({"epochs": 8}, {"max_forget_loss": 4.0, "retain_weight": 2.0}),
        "idk": ({"learning_rate": 7e-4, "epochs": 6, "retain_per_forget": 2}, {}),
        "npo": ({"learning_rate": 5e-4, "epochs": 10}, {"beta": 0.5}),
        "npo-rt": ({"retain_per_forget": 2}, {"retain_weight": 5.0}),
        "npo-kl": ({"epochs": 6}, {"retain_weight": 10.0}),
    }
)
"""Method to its changes of `_SMALL` and of its recipe; without a limit on the forget loss, gradient ascent would
ruin the model before the forget set is forgotten."""
_SCRATCH_LORA: Mapping[str, tuple[Mapping[str, Any], str]] = MappingProxyType(
    {
        "ga": ({"learning_rate": 5e-4, "epochs": 12}, "all-linear"),
        "graddiff": ({"learning_rate": 1.5e-3, "epochs": 14}, "all-linear"),
        "kl-min": ({"learning_rate": 3e-3, "epochs": 14}, "mlp"),
        "idk": ({"learning_rate": 1.5e-3, "epochs": 10}, "all-linear"),
        "npo": ({"learning_rate": 5e-4, "epochs": 20}, "all-linear"),
        "npo-rt": ({"learning_rate": 3e-3, "epochs": 12}, "mlp"),
        "npo-kl": ({"learning_rate": 3e-3, "epochs": 12}, "mlp"),
    }
)
"""Method to what an adapter of rank 16 changes further, and to its targets."""


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
    train_changes, recipe_changes = _SCRATCH[method]
    lora_changes, targets = _SCRATCH_LORA[method]
    if parametrization == "lora":
        train_changes = {**train_changes, **lora_changes}
    return Preset(
        name=name,
        recipe=replace(recipe, **recipe_changes),
        train=replace(_SMALL, **train_changes),
        lora=LoraSettings(rank=16, alpha=32.0, targets=targets),
    )


PRESETS = ("paper", "scratch")
"""Names of the presets."""
