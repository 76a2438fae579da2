"""Negative preference optimization and its partners on retain rows."""

from __future__ import annotations

from dataclasses import replace

from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain

__all__ = ["RECIPES"]

_NPO = Recipe(
    name="npo",
    summary="Negative preference optimization: ascent that fades as an answer becomes unlikely",
    paper="arXiv:2404.05868",
    terms=(forget("npo"),),
    paper_lora=LoraSettings(rank=8, alpha=32.0, dropout=0.05),
    scratch={"learning_rate": 5e-4, "epochs": 10, "beta": 0.5},
    scratch_lora={"epochs": 20},
)
RECIPES = (
    _NPO,
    replace(
        _NPO,
        name="npo-rt",
        summary="NPO on the forget answers, descent on the retain answers",
        terms=(forget("npo"), retain("ce")),
        scratch={"retain_per_forget": 2, "retain_weight": 5.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 12, "targets": "mlp"},
    ),
    replace(
        _NPO,
        name="npo-kl",
        summary="NPO on the forget answers, staying close to the start model on retain rows",
        terms=(forget("npo"), retain("kl")),
        scratch={"epochs": 6, "retain_weight": 10.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 12, "targets": "mlp"},
    ),
)
