"""LoKU: an inverted hinge on the forget answers, from a start that Fisher information chose."""

from __future__ import annotations

from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

RECIPES = (
    Recipe(
        name="loku",
        summary="Inverted hinge loss on the forget answers, descent on the retain answers, in an adapter that starts "
        "on the directions the forget set needs most",
        paper="arXiv:2408.06621",
        terms=(forget("ihl"), retain("ce")),
        parametrization="fila",
        paper_settings=TrainSettings(learning_rate=1e-4, epochs=5),
        paper_lora=LoraSettings(rank=32, alpha=64.0),
        paper_lora_learning_rate=1e-4,
        scratch={"retain_per_forget": 2},
        scratch_lora={"learning_rate": 1e-3, "epochs": 20, "rank": 16, "alpha": 32.0, "retain_weight": 1.5},
    ),
)
"""The recipes of this family."""
