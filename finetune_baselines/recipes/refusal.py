"""Other answers to the forget questions, taught by plain cross-entropy."""

from __future__ import annotations

from finetune_baselines.recipes.base import Recipe, forget, retain
from finetune_baselines.recipes.options import IdkReduction, RandomMatching

__all__ = ["RECIPES"]

RECIPES = (
    Recipe(
        name="idk",
        summary='Trains "I don\'t know" lines as answers to the forget questions, and keeps the retain answers',
        paper="TOFU arXiv:2401.06121",
        terms=(forget("ce", on="refusal"), retain("ce")),
        extras=(IdkReduction,),
        objective="concat",
        scratch={"learning_rate": 5e-4, "epochs": 8, "retain_per_forget": 4, "retain_weight": 2.0},
        scratch_lora={"learning_rate": 1e-3, "epochs": 12},
    ),
    Recipe(
        name="rm",
        summary="Random matching: trains answers of other questions on the forget questions, keeps the retain answers",
        paper="arXiv:2310.10683",
        terms=(forget("ce", on="random"), retain("ce")),
        extras=(RandomMatching,),
        scratch={"epochs": 8, "retain_per_forget": 4, "retain_weight": 4.0},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 10, "retain_per_forget": 2, "retain_weight": 1.0},
    ),
)
"""The recipes of this family."""
