"""Methods that steer hidden states."""

from __future__ import annotations

from finetune_baselines.recipes.base import Recipe, forget, retain
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

RECIPES = (
    Recipe(
        name="rmu",
        summary="Steers hidden states of forget rows to a random direction, keeps those of retain rows; three blocks",
        paper="arXiv:2403.03218",
        terms=(forget("rmu"), retain("embed-diff", weight=1200.0)),
        # 150 batches of 4 there; about as many steps on 400 forget rows.
        paper_settings=TrainSettings(
            learning_rate=5e-5, epochs=2, batch_size=4, warmup_epochs=0.0, schedule="constant"
        ),
        paper_lora_learning_rate=5e-4,
        scratch={"learning_rate": 5e-3, "epochs": 15, "retain_weight": 1.0, "coefficient": 150.0},
        scratch_lora={"learning_rate": 2e-2, "targets": "mlp"},
    ),
)
"""The recipes of this family."""
