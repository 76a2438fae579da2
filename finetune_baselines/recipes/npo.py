"""Negative preference optimization and its partners on retain rows."""

from __future__ import annotations

from dataclasses import replace

from finetune_baselines.perturbation import Perturbation
from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

_NPO = Recipe(
    name="npo",
    summary="Negative preference optimization: ascent that fades as an answer becomes unlikely",
    paper="arXiv:2404.05868",
    terms=(forget("npo"),),
    paper_lora=LoraSettings(rank=8, alpha=32.0, dropout=0.05),
    scratch={"learning_rate": 5e-4, "epochs": 10, "beta": 0.5},
    scratch_lora={"learning_rate": 1e-3, "epochs": 6, "rank": 64, "alpha": 64.0},
)
RECIPES = (
    _NPO,
    replace(
        _NPO,
        name="npo-rt",
        summary="NPO on the forget answers, descent on the retain answers",
        terms=(forget("npo"), retain("ce")),
        scratch={"retain_per_forget": 2, "retain_weight": 5.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 14, "targets": "mlp", "retain_weight": 8.0},
    ),
    replace(
        _NPO,
        name="npo-kl",
        summary="NPO on the forget answers, staying close to the start model on retain rows",
        terms=(forget("npo"), retain("kl")),
        scratch={"epochs": 6, "retain_weight": 10.0},
        scratch_lora={"learning_rate": 3e-3, "epochs": 12, "targets": "mlp"},
    ),
    Recipe(
        name="npo-token",
        summary="NPO token by token: each answer token fades on its own; descent on the retain answers",
        paper="arXiv:2503.13690; TNPO arXiv:2502.19301",
        terms=(forget("npo-token"), retain("ce")),
        scratch={"epochs": 7, "retain_per_forget": 2, "retain_weight": 2.0},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 12},
    ),
    Recipe(
        name="simnpo",
        summary="NPO without a reference, normalised by length; descent on the retain answers",
        paper="arXiv:2410.07163",
        terms=(forget("simnpo", weight=0.125), retain("ce")),
        options={"beta": 4.5},  # TOFU forget10; forget05: beta 2.5 with forget_weight 0.1375
        scratch={"epochs": 7, "retain_per_forget": 2, "beta": 2.5, "forget_weight": 1.0},
        scratch_lora={"learning_rate": 1.5e-3, "epochs": 12},
    ),
    Recipe(
        name="sam-npo",
        summary="NPO whose gradient is taken at the worst weights nearby, against relearning; descent on retain",
        paper="arXiv:2502.05374",
        terms=(forget("npo"), retain("ce", weight=2.25)),
        options={"beta": 0.015, "npo_level": "batch_mean", "rho": 0.01},
        extras=(Perturbation,),
        paper_settings=TrainSettings(learning_rate=5e-6, batch_size=4, epochs=2),  # 125 steps
        scratch={"retain_per_forget": 2, "retain_weight": 5.0, "beta": 0.1, "npo_level": "sequence"},
        scratch_lora={"learning_rate": 3e-3, "epochs": 12, "targets": "mlp"},
    ),
)
"""The recipes of this family."""
