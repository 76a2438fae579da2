"""Gradient ascent and its partners on retain rows."""

from __future__ import annotations

from dataclasses import replace

from finetune_baselines.recipes.base import Recipe, forget, retain
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

_GA = Recipe(
    name="ga",
    summary="Gradient ascent on the forget answers; no lower bound, so it ruins the model if run long",
    paper="arXiv:2310.10683; TOFU arXiv:2401.06121",
    # forget_kl_weight=1 is what the NPO repository calls forget-KL: ascent that stays close on the forget rows too.
    terms=(forget("ga"), forget("kl", weight=0.0, name="forget_kl")),
    # Without a limit on the forget loss, ascent would ruin a small model before the forget set is forgotten.
    scratch={"learning_rate": 7.5e-4, "max_forget_loss": 4.0},
    scratch_lora={"learning_rate": 1e-3, "epochs": 6, "rank": 64, "alpha": 64.0},
)
RECIPES = (
    _GA,
    replace(
        _GA,
        name="graddiff",
        summary="Gradient ascent on the forget answers, descent on the retain answers",
        terms=(forget("ga"), retain("ce")),
        scratch={"epochs": 8, "max_forget_loss": 3.0},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 14},
    ),
    replace(
        _GA,
        name="kl-min",
        summary="Gradient ascent on the forget answers, staying close to the start model on retain rows",
        terms=(forget("ga"), retain("kl")),
        scratch={"epochs": 8, "max_forget_loss": 4.0, "retain_weight": 2.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 14, "targets": "mlp"},
    ),
    replace(
        _GA,
        name="klf",
        summary="Pushes the distributions on forget answers away from the start model's; descent on retain answers",
        paper="GNM, doi:10.1007/978-3-031-88714-7_16",
        # The forget term has no gradient at the start: the first steps are the retain term's.
        terms=(forget("klf"), retain("ce")),
        scratch={"epochs": 8, "max_forget_loss": 5.0, "retain_weight": 1.5},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 14},
    ),
    Recipe(
        name="wga",
        summary="Gradient ascent weighted by each token's probability, descent on the retain answers",
        paper="arXiv:2502.19301",
        terms=(forget("wga"), retain("ce")),
        paper_settings=TrainSettings(epochs=5),
        scratch={"epochs": 8},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 14},
    ),
    Recipe(
        name="satimp",
        summary="Gradient ascent weighted by a token's saturation and importance, descent on the retain answers",
        paper="arXiv:2505.11953",
        terms=(forget("satimp"), retain("ce", weight=0.1)),
        paper_settings=TrainSettings(epochs=5, batch_size=16),
        scratch={"epochs": 10, "beta1": 1.0, "retain_weight": 0.15},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 14},
    ),
)
"""The recipes of this family."""
