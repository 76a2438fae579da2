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
        scratch={"learning_rate": 7e-4, "epochs": 6, "retain_per_forget": 2},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 10},
    ),
    Recipe(
        name="rm",
        summary="Random matching: trains answers of other questions on the forget questions, keeps the retain answers",
        paper="arXiv:2310.10683",
        terms=(forget("ce", on="random"), retain("ce")),
        extras=(RandomMatching,),
        scratch={"epochs": 12, "retain_per_forget": 2},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 10},
    ),
)
"""The recipes of this family."""
