"""Gradient ascent and its partners on retain rows."""

from __future__ import annotations

from dataclasses import replace

from finetune_baselines.recipes.base import Recipe, forget, retain

__all__ = ["RECIPES"]

_GA = Recipe(
    name="ga",
    summary="Gradient ascent on the forget answers; no lower bound, so it ruins the model if run long",
    paper="arXiv:2310.10683; TOFU arXiv:2401.06121",
    terms=(forget("ga"),),
    # Without a limit on the forget loss, ascent would ruin a small model before the forget set is forgotten.
    scratch={"learning_rate": 7.5e-4, "max_forget_loss": 4.0},
    scratch_lora={"learning_rate": 5e-4, "epochs": 12},
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
)
