"""Recipes: what each method minimises, on which answers, against which reference, and what its paper set.

A recipe names its terms; `finetune_baselines.objective` knows how a term is computed. A new method is one loss
file, one entry in `objective.TERMS` if the loss is new, and one entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from eval.errors import ConfigError, UnknownNameError
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES", "TUNABLE", "LoraSettings", "Recipe", "recipe"]

TUNABLE = ("forget_weight", "retain_weight", "beta", "kl_direction", "max_forget_loss", "on_max_forget_loss")
"""The fields of a recipe that a run may override; the others are what the method is."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Shape of a low-rank adapter.

    Raises:
        ConfigError: If a value is out of range.
    """

    rank: int = 16
    alpha: float = 32.0
    """The update is scaled by ``alpha / rank``."""
    dropout: float = 0.0
    targets: str = "all-linear"
    """``all-linear`` (every linear layer but the output embedding), ``mlp`` (those of the feed-forward parts), or
    module names joined by commas."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"LoRA needs rank >= 1, alpha > 0 and 0 <= dropout < 1; got rank {self.rank}, alpha {self.alpha}, "
                f"dropout {self.dropout}."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One unlearning method as data: ``L = forget_weight * L_f + retain_weight * L_r``.

    Raises:
        ConfigError: If a value is out of range.
    """

    name: str
    summary: str
    """One line: what it does."""
    paper: str
    """Where it comes from."""
    forget: str
    """The term on the forget rows, a name in `finetune_baselines.objective.TERMS`."""
    retain: str | None = None
    """The term on the retain rows; ``None``: the method looks at none."""
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    beta: float = 0.1
    """Inverse temperature of preference losses."""
    kl_direction: Literal["ref_th", "th_ref"] = "ref_th"
    answers: Literal["gold", "refusal"] = "gold"
    """What stands after a forget question: its gold answer, or an "I don't know" line."""
    max_forget_loss: float | None = None
    """For forget terms without a lower bound: the negative log-likelihood (nats a token) that is enough."""
    on_max_forget_loss: Literal["clamp", "stop"] = "clamp"
    """Leave tokens beyond it alone, or end the run once a step's mean is beyond it."""
    paper_settings: TrainSettings = TrainSettings()  # noqa: RUF009
    """As published for TOFU with a 7 B model; effective batch 32."""
    paper_lora: LoraSettings = LoraSettings()
    paper_lora_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for field in ("forget_weight", "retain_weight"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be 0 or above.")
        if self.beta <= 0:
            raise ConfigError(f"beta is {self.beta}; it must be above 0.")
        if self.max_forget_loss is not None and self.max_forget_loss <= 0:
            raise ConfigError(
                f"max_forget_loss is {self.max_forget_loss}; it must be above 0, or null for no limit."
            )
        if self.on_max_forget_loss not in ("clamp", "stop"):
            raise ConfigError(f"Unknown on_max_forget_loss {self.on_max_forget_loss!r}; use clamp or stop.")
        if self.kl_direction not in ("ref_th", "th_ref"):
            raise ConfigError(f"Unknown kl_direction {self.kl_direction!r}; use ref_th or th_ref.")


_GA = Recipe(
    name="ga",
    summary="Gradient ascent on the forget answers; no lower bound, so it ruins the model if run long",
    paper="arXiv:2310.10683; TOFU arXiv:2401.06121",
    forget="ga",
)
_NPO = Recipe(
    name="npo",
    summary="Negative preference optimization: ascent that fades as an answer becomes unlikely",
    paper="arXiv:2404.05868",
    forget="npo",
    paper_lora=LoraSettings(rank=8, alpha=32.0, dropout=0.05),
)
_ALL = (
    _GA,
    replace(
        _GA,
        name="graddiff",
        summary="Gradient ascent on the forget answers, descent on the retain answers",
        retain="ce",
    ),
    replace(
        _GA,
        name="kl-min",
        summary="Gradient ascent on the forget answers, staying close to the start model on retain rows",
        retain="kl",
    ),
    Recipe(
        name="idk",
        summary='Trains "I don\'t know" lines as answers to the forget questions, and keeps the retain answers',
        paper="TOFU arXiv:2401.06121",
        forget="ce",
        retain="ce",
        answers="refusal",
    ),
    _NPO,
    replace(
        _NPO, name="npo-rt", summary="NPO on the forget answers, descent on the retain answers", retain="ce"
    ),
    replace(
        _NPO,
        name="npo-kl",
        summary="NPO on the forget answers, staying close to the start model on retain rows",
        retain="kl",
    ),
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Every fine-tuning method by name."""


def recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    if name not in RECIPES:
        raise UnknownNameError("fine-tuning method", name, RECIPES)
    return RECIPES[name]
