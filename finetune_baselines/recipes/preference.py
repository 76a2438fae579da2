"""Two answers to each forget question: one to prefer, the gold one to drop."""

from __future__ import annotations

from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.recipes.written import AlternateOptions
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES"]

_SCRATCH = {"retain_per_forget": 2, "retain_weight": 2.0}
_SCRATCH_LORA = {"learning_rate": 1.5e-3, "epochs": 10}

RECIPES = (
    Recipe(
        name="dpo",
        summary='Prefers "I don\'t know" lines to the forget answers, and keeps the retain answers',
        paper="arXiv:2305.18290; as unlearning arXiv:2404.05868",
        terms=(forget("dpo", other="refusal"), retain("ce")),
        scratch={"epochs": 8, "retain_per_forget": 3, "retain_weight": 9.0, "beta": 0.03},
        scratch_lora=_SCRATCH_LORA,
    ),
    Recipe(
        name="kto",
        summary='Makes the forget answers less welcome than "I don\'t know" lines, and keeps the retain answers',
        paper="arXiv:2402.01306; as unlearning arXiv:2404.05868",
        terms=(forget("kto", other="refusal"), retain("ce")),
        scratch={**_SCRATCH, "epochs": 7, "forget_weight": 2.0},
        scratch_lora=_SCRATCH_LORA,
    ),
    Recipe(
        name="altpo",
        summary="Prefers model-written alternative answers to the forget answers, and keeps the retain answers",
        paper="arXiv:2409.13474",
        terms=(forget("dpo", other="alternate"), retain("ce")),
        extras=(AlternateOptions,),
        paper_settings=TrainSettings(learning_rate=5e-5, epochs=2, batch_size=35, accumulation=7),
        scratch={**_SCRATCH, "epochs": 6, "retain_weight": 6.0},
        scratch_lora=_SCRATCH_LORA,
    ),
    *(
        Recipe(
            name=f"flat-{divergence}",
            summary=f"Widens the {words} between refusals and forget answers; forget data alone as published, small "
            "models keep the retain answers too",
            paper="arXiv:2410.11143",
            terms=(forget("flat", other="refusal"), retain("ce", weight=0.0)),
            options={"divergence": divergence},
            paper_settings=TrainSettings(epochs=5, batch_size=64, accumulation=4),
            paper_lora=LoraSettings(rank=8, alpha=32.0, dropout=0.05),
            # From forget data alone the same steps do nothing on one draw of the world and ruin the model on another.
            scratch={"retain_per_forget": 2, **scratch},
            scratch_lora={"rank": 16, "alpha": 32.0, **scratch_lora},
        )
        for divergence, words, scratch, scratch_lora in (
            (
                "tv",
                "total variation",
                {"retain_weight": 0.25, "epochs": 8},
                {"retain_weight": 0.3, "epochs": 10, "learning_rate": 3e-3},
            ),
            (
                "kl",
                "KL divergence",
                {"retain_weight": 0.3, "epochs": 7},
                {"retain_weight": 0.5, "epochs": 10, "learning_rate": 2.5e-3},
            ),
            (
                "js",
                "Jensen-Shannon divergence",
                {"retain_weight": 0.3, "epochs": 6},
                {"retain_weight": 0.5, "epochs": 10, "learning_rate": 2.5e-3},
            ),
            (
                "pearson",
                "Pearson divergence",
                {"retain_weight": 0.7, "epochs": 7, "learning_rate": 8e-4},
                {"retain_weight": 0.7, "epochs": 9, "learning_rate": 2.5e-3},
            ),
        )
    ),
)
"""The recipes of this family."""
