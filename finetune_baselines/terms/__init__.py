"""Every loss that a recipe may name: how it is computed from a batch, and what a user may set about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from finetune_baselines.terms import distribution, likelihood, preference, representation
from finetune_baselines.terms.base import Answers, Everywhere, ForgetLimit, Hidden, NoOptions, Reference, Term

__all__ = ["TERMS", "Answers", "Everywhere", "ForgetLimit", "Hidden", "NoOptions", "Reference", "Term"]

TERMS: Mapping[str, Term] = MappingProxyType(
    {**likelihood.TERMS, **preference.TERMS, **distribution.TERMS, **representation.TERMS}
)
"""Every term by name, on whichever rows a recipe puts it."""
