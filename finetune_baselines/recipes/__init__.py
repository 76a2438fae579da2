"""Recipes: what each method minimises, on which answers, against which reference, and what its paper set.

A recipe names its terms; `finetune_baselines.terms` knows how a term is computed. A new method is one loss file,
one entry in a `TERMS` if the loss is new, and one entry in a family's file here; a new family is one module in
`_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eval.errors import UnknownNameError
from finetune_baselines.recipes import (
    ascent,
    chunked,
    distribution,
    gnm,
    loku,
    merged,
    npo,
    preference,
    refusal,
    representation,
)
from finetune_baselines.recipes.base import LoraSettings, Recipe, TermUse

__all__ = ["RECIPES", "TUNABLE", "LoraSettings", "Recipe", "TermUse", "recipe"]

_FAMILIES = (ascent, refusal, preference, npo, distribution, representation, chunked, gnm, loku, merged)
"""In the order in which methods are listed."""

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {one.name: one for family in _FAMILIES for one in family.RECIPES}
)
"""Every fine-tuning method by name."""

TUNABLE: tuple[str, ...] = tuple(dict.fromkeys(key for one in RECIPES.values() for key in one.tunables))
"""Every setting that is some method's own; `Recipe.tunables` says which one has which."""


def recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    if name not in RECIPES:
        raise UnknownNameError("fine-tuning method", name, RECIPES)
    return RECIPES[name]
