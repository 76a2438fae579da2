"""Methods that meet the forget set chunk by chunk (SemEval-2025 task 4 and what followed from it)."""

from __future__ import annotations

from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.sampling import Annealing, Chunks
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

_TARGETS = "q_proj,v_proj,up_proj,down_proj"
RECIPES = (
    Recipe(
        name="clausen",
        summary="Token-level NPO, cross-entropy and a Renyi divergence on retain rows, chunk after chunk",
        paper="Clausen, WNNLP 2025, University of Oslo, pp. 88-98",
        terms=(forget("npo-token"), retain("ce", name="rt"), retain("renyi", name="renyi")),
        extras=(Chunks,),
        sampling="chunks",
        parametrization="lora",
        paper_settings=TrainSettings(
            learning_rate=1e-4,
            epochs=5,
            batch_size=1,
            retain_per_forget=7,
            weight_decay=0.0,
            warmup_epochs=0.0,
        ),
        paper_lora=LoraSettings(rank=16, alpha=64.0, targets=_TARGETS),
        scratch={"epochs": 4, "batch_size": 4, "retain_per_forget": 7},
        scratch_lora={"alpha": 64.0, "targets": _TARGETS, "learning_rate": 3e-3},
    ),
    Recipe(
        name="atyaephyra",
        summary="Token-level NPO through an adapter of rank 5, staying close to the start model on retain rows",
        paper="arXiv:2503.13690",
        terms=(forget("npo-token"), retain("ce", name="rt"), retain("kl", weight=0.5, name="kl")),
        parametrization="lora",
        paper_settings=TrainSettings(
            learning_rate=1e-4,
            epochs=20,
            batch_size=4,
            weight_decay=0.0,
            warmup_epochs=0.0,
            schedule="constant",
        ),
        paper_lora=LoraSettings(rank=5, alpha=5.0, targets="q_proj,v_proj"),
        scratch={"epochs": 20},
        scratch_lora={"rank": 5, "alpha": 5.0, "targets": "q_proj,v_proj", "learning_rate": 8e-3},
    ),
    Recipe(
        name="ails-sugd",
        summary="Signed gradient steps over consecutive forget chunks, each forget row followed by seven retain rows",
        paper="AILS-NTUA arXiv:2503.02443",
        terms=(forget("ga-rows"), retain("ce-rows", weight=0.5)),
        options={"batch_of": "rows"},
        extras=(Chunks,),
        objective="rows",
        sampling="chunks",
        parametrization="lora",  # the winning run trained the last 8 blocks: parametrization=last-k blocks=8
        paper_settings=TrainSettings(
            learning_rate=1e-5,
            epochs=7,
            batch_size=1,
            retain_per_forget=7,
            weight_decay=0.0,
            warmup_epochs=0.0,
        ),
        paper_lora=LoraSettings(rank=16, alpha=64.0, targets=_TARGETS),
        paper_lora_learning_rate=1e-5,
        scratch={
            "epochs": 4,
            "batch_size": 16,
            "retain_per_forget": 7,
            "retain_weight": 0.7,
            "max_forget_loss": 4.0,
        },
        scratch_lora={"alpha": 64.0, "targets": _TARGETS, "learning_rate": 2e-3},
    ),
    Recipe(
        name="ails-agad",
        summary="Gradient ascent on each forget chunk, then descent on part of the retain rows; at the end on all",
        paper="AILS-NTUA arXiv:2503.02443",
        terms=(forget("ga-rows"), retain("ce-rows")),
        extras=(Annealing,),
        objective="rows",
        sampling="annealing",
        parametrization="lora",
        paper_settings=TrainSettings(
            learning_rate=5e-5, epochs=3, batch_size=16, weight_decay=0.0, warmup_epochs=0.0
        ),
        paper_lora=LoraSettings(rank=16, alpha=32.0, targets=_TARGETS),
        paper_lora_learning_rate=5e-5,
        # The annealing that follows brings back what was barely forgotten, so ascent must go on long enough first;
        # through an adapter it brings back most of it all the same.
        scratch={"learning_rate": 1.15e-3, "epochs": 7, "batch_size": 16, "max_forget_loss": 4.0},
        scratch_lora={
            "rank": 64,
            "alpha": 64.0,
            "learning_rate": 2.6e-3,
            "chunk_size": 16,
            "annealing_fraction": 0.1,
        },
    ),
)
"""The recipes of this family."""
