"""Methods that shape the whole next-token distribution on forget answers."""

from __future__ import annotations

from finetune_baselines.recipes.base import Recipe, forget, retain
from finetune_baselines.recipes.options import DualOptions
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

RECIPES = (
    Recipe(
        name="ce-u",
        summary="Trains towards the model's own distribution with the gold token taken out; forget data alone as "
        "published, small models keep the retain answers too",
        paper="arXiv:2503.01224",
        terms=(forget("ce-u"), retain("ce", weight=0.0)),
        # From forget data alone, a small model loses the rest with what it should forget.
        scratch={"epochs": 8, "retain_weight": 2.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 12},
    ),
    Recipe(
        name="pdu",
        summary="Flattens the logits on forget answers while a dual variable holds the retain loss under a bound",
        paper="arXiv:2506.05314",
        terms=(forget("pdu"), retain("ce", weight=50.0)),
        extras=(DualOptions,),
        objective="primal-dual",
        scratch={"epochs": 8},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 12},
    ),
    Recipe(
        name="jensun",
        summary='Jensen-Shannon divergences: forget answers towards "No idea", retain answers to the start model',
        paper="arXiv:2509.02820",
        terms=(forget("jensun"), retain("js")),
        paper_settings=TrainSettings(learning_rate=8e-6, batch_size=16, accumulation=4),
        scratch={"learning_rate": 2e-3, "epochs": 8, "retain_per_forget": 2},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 10},
    ),
    Recipe(
        name="undial",
        summary="Distils from the start model with each gold token's logit pushed down",
        paper="arXiv:2402.10052",
        terms=(forget("undial"), retain("ce", weight=0.0)),
        paper_settings=TrainSettings(learning_rate=1e-4),
        scratch={"learning_rate": 1.5e-3, "epochs": 8, "retain_weight": 1.0, "beta": 30.0},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 10},
    ),
)
"""The recipes of this family."""
