"""What an edit minimises: GRUN's four recipes, and the terms of any fine-tuning method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eval.errors import ConfigError, UnknownNameError
from finetune_baselines.recipes import RECIPES, Recipe, TermUse
from finetune_baselines.recipes.base import forget, retain
from grun.settings import GrunSettings

__all__ = ["LOSSES", "recipe_of"]

_KEPT = retain("ce-rows")
LOSSES: dict[str, tuple[TermUse, TermUse]] = {
    "gd": (forget("ga-rows"), _KEPT),
    "idk": (forget("ce-rows", on="refusal"), _KEPT),
    "npo": (forget("npo"), _KEPT),
    "rmu": (forget("rmu"), retain("embed-diff")),
}
"""GRUN's own recipes (arXiv:2502.17823): the forget term and the retain term."""


def recipe_of(settings: GrunSettings, layers: Sequence[int]) -> Recipe:
    """Return the forget and retain terms of a training, weighted.

    Args:
        settings: ``loss`` names one of `LOSSES` or a fine-tuning method; a method without a retain term gets
            cross-entropy on the retain answers.
        layers: Edited blocks; a loss on hidden states reads the last of them where ``loss_options`` names none.

    Raises:
        UnknownNameError: If there is no such loss.
        ConfigError: If the method is more than a sum of terms, an option is not allowed, or the block that is read
            lies before an edited one.
    """
    loss = settings.loss
    if loss in LOSSES:
        terms = LOSSES[loss]
        recipe = Recipe(name=f"grun-{loss}", summary="", paper="arXiv:2502.17823", terms=terms)
    elif loss in RECIPES:
        recipe = RECIPES[loss]
        if recipe.objective != "sum" or recipe.sampling != "pairs":
            raise ConfigError(
                f"{loss!r} is more than a sum of terms on pairs of rows, so GRUN cannot use it; choose another loss."
            )
        own = tuple(term for term in recipe.terms if term.weight)
        recipe = replace(recipe, terms=own if recipe.uses_retain else (*own, _KEPT))
    else:
        raise UnknownNameError("GRUN loss", loss, {**LOSSES, **RECIPES})
    weights = {"forget": settings.forget_weight, "retain": settings.retain_weight}
    weighted = tuple(replace(term, weight=weights[term.side] * term.weight) for term in recipe.terms)
    options: dict[str, Any] = dict(recipe.options)
    if loss == "gd":
        options["max_forget_loss"] = settings.margin
    if loss == "npo":
        options["beta"] = settings.beta
    if "rmu_layer" in recipe.tunables:
        options["rmu_layer"] = layers[-1]
    recipe = replace(recipe, terms=weighted, options=options | dict(settings.loss_options))
    read = recipe.options.get("rmu_layer")
    if read is not None and read < layers[-1]:
        raise ConfigError(
            f"rmu_layer is {read}, but block {layers[-1]} is edited too and would learn nothing; read block "
            f"{layers[-1]} or a later one, or edit blocks up to {read}."
        )
    return recipe
