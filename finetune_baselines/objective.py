"""From a recipe to an objective: one forward over all rows of a batch, then the recipe's terms."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from eval.models.forward import evaluating
from finetune_baselines.batches import PairBatch, take_rows
from finetune_baselines.recipes import Recipe, TermUse
from finetune_baselines.terms import TERMS, Answers, ForgetLimit, Reference
from finetune_baselines.training import Objective, Unit

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["OBJECTIVES", "RecipeObjective", "needs_reference", "new_objective"]

OBJECTIVES: Mapping[str, str] = MappingProxyType({"sum": "finetune_baselines.objective:RecipeObjective"})
"""How a recipe's terms become a gradient, by name."""


def new_objective(recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> Objective:
    """Build the objective that a recipe names; the arguments are those of `RecipeObjective`."""
    module, _, attribute = OBJECTIVES[recipe.objective].partition(":")
    build: Callable[..., Objective] = getattr(importlib.import_module(module), attribute)
    return build(recipe, start=start, seed=seed)


def needs_reference(recipe: Recipe) -> frozenset[Reference]:
    """Return what the recipe's active terms must know about the start model."""
    return frozenset(TERMS[use.loss].reference for use in recipe.active)


class RecipeObjective:
    """The weighted sum of a recipe's terms, as the trainer calls it.

    Args:
        recipe: What to minimise.
        start: The frozen start model, for terms that need its logits; ``None``: the model in training with its
            edit switched off (an adapter that starts at zero).
        seed: Of the run: for what a term draws once and then keeps.
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> None:
        self.recipe = recipe
        self.start = start
        self.seed = seed
        self.units: dict[str, Unit] = {
            use.label: f"{use.on}_{TERMS[use.loss].mean_over}" for use in recipe.active
        }
        self._options = {use.label: recipe.get(TERMS[use.loss].options) for use in recipe.active}

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the active terms by label, weighted; see `Objective`."""
        batch = batch.to(lm.device)
        return self.terms(self.recipe.active, self.answers(lm, batch, module))

    def terms(self, uses: tuple[TermUse, ...], answers: Mapping[str, Answers]) -> dict[str, Tensor]:
        """Return the weighted values of some of the recipe's terms."""
        return {use.label: use.weight * self._value(use, answers) for use in uses}

    def answers(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Answers]:
        """Run the batch once and return what the losses may look at, kind by kind."""
        frozen = self._reference_logits(lm, batch)
        logits = lm.answer_logits(batch.both, module=module)
        out: dict[str, Answers] = {}
        reference = batch.reference_logps
        lengths = batch.lengths
        nothing = {kind: slice(0, 0) for kind in self.recipe.answer_kinds}
        for kind, rows in (nothing | batch.sections).items():
            tokens = slice(int(lengths[: rows.start].sum()), int(lengths[: rows.stop].sum()))
            out[kind] = Answers(
                logits=logits[tokens],
                targets=batch.both.targets[tokens],
                rows=batch.both.rows[tokens] - rows.start,
                num_rows=rows.stop - rows.start,
                reference_token_logps=None if reference is None else reference[tokens],
                reference_logits=frozen.get(kind, logits[tokens].detach())
                if kind in self._compared
                else None,
                tokenize=lambda text: list(lm.tokenizer(text, add_special_tokens=False)["input_ids"]),
                seed=self.seed,
            )
        return out

    def should_stop(self, terms: Mapping[str, float]) -> str | None:
        """Return a sentence once the mean forget loss of a step is beyond the recipe's limit."""
        for use in self.recipe.active:
            limit = self._options[use.label]
            if not isinstance(limit, ForgetLimit) or limit.on_max_forget_loss != "stop":
                continue
            reached = -terms.get(use.label, 0.0) / use.weight
            if limit.max_forget_loss is not None and reached > limit.max_forget_loss:
                return (
                    f"The forget loss ({use.label}) reached {reached:.2f} nats, above max_forget_loss "
                    f"{limit.max_forget_loss}."
                )
        return None

    def _value(self, use: TermUse, answers: Mapping[str, Answers]) -> Tensor:
        others = () if use.other is None else (answers[use.other],)
        return TERMS[use.loss].compute(answers[use.on], self._options[use.label], *others)

    @property
    def _compared(self) -> frozenset[str]:
        """Kinds of rows whose logits are compared with the start model's."""
        return frozenset(use.on for use in self.recipe.active if TERMS[use.loss].reference == "logits")

    def _reference_logits(self, lm: LanguageModel, batch: PairBatch) -> dict[str, Tensor]:
        """Run the start model on the kinds of rows that need it; a kind without rows needs no forward."""
        out: dict[str, Tensor] = {}
        for kind, rows in batch.sections.items():
            if kind in self._compared and rows.stop > rows.start:
                start = self.start or lm
                off = nullcontext() if self.start is not None else lm.edit_disabled()
                with off, evaluating(start.model):
                    out[kind] = start.answer_logits(take_rows(batch.both, rows.start, rows.stop)).float()
        return out
