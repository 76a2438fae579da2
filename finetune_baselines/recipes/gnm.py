"""GNM: gradual negative matching, with its six terms, each on when its weight is not 0."""

from __future__ import annotations

from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.recipes.options import GnmTemplate, RandomMatching
from finetune_baselines.recipes.written import NegativeOptions, Subsample
from finetune_baselines.sampling import Pairs
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

RECIPES = (
    Recipe(
        name="gnm",
        summary="Gradual negatives and ascent on the forget questions, staying close to the start "
        "model on retain rows, in adapters whose ranks adapt",
        paper="ECIR 2025, 10.1007/978-3-031-88714-7_16",
        terms=(
            forget("ga-rows", weight=0.5, name="ga"),
            retain("ce-rows", weight=0.0, name="gd"),  # published weight where it is on: 5
            forget("ce-rows", on="random", weight=0.0, name="rm"),  # 1
            forget("ce-rows", on="negative", weight=0.04, name="gnm"),
            retain("kl", weight=5.0, name="klr"),
            forget("klf", weight=0.0, name="klf"),  # 1
        ),
        extras=(NegativeOptions, Subsample, RandomMatching, GnmTemplate, Pairs),
        parametrization="adalora",
        paper_settings=TrainSettings(learning_rate=1e-4, epochs=10, batch_size=1, warmup_epochs=0.0),
        paper_lora=LoraSettings(rank=8, alpha=8.0),
        scratch={"max_forget_loss": 3.0, "ga_weight": 1.0, "klr_weight": 2.0},
        scratch_lora={"learning_rate": 1e-2, "epochs": 16, "rank": 8, "alpha": 32.0},
    ),
)
"""The recipes of this family."""
