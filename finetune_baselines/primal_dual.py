"""The objective of primal-dual unlearning: the retain term's weight is a dual variable that learns as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eval.errors import ConfigError
from finetune_baselines.losses import dual_ascent
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import Recipe, TermUse
from finetune_baselines.recipes.options import DualOptions
from finetune_baselines.terms import Answers

if TYPE_CHECKING:
    from torch import nn

    from eval.models.language_model import LanguageModel
    from finetune_baselines.batches import PairBatch

__all__ = ["PrimalDualObjective"]


class PrimalDualObjective(RecipeObjective):
    r"""Minimise L_f subject to L_r <= eps (arXiv:2506.05314): L = L_f + lambda (L_r - eps), lambda by dual ascent.

    lambda starts at the retain term's weight; after each step beyond the warm-up
    ``lambda <- max(0, lambda + eta (L_r - eps))`` with that step's retain loss. The retain term is reported as
    L_r itself; its gradient is lambda times L_r's.

    Args:
        recipe: With one retain term and `DualOptions`.
        start: As in `RecipeObjective`.
        seed: As in `RecipeObjective`.

    Raises:
        ConfigError: If the recipe has no retain term, or several.
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> None:
        super().__init__(recipe, start=start, seed=seed)
        self.constraint = recipe.get(DualOptions)
        constrained = [use for use in recipe.active if use.side == "retain"]
        if len(constrained) != 1:
            raise ConfigError(
                f"{recipe.name} bounds one retain loss, but has {len(constrained)} retain terms with a weight; the "
                "weight is what its multiplier starts at and must be above 0."
            )
        self.retain = constrained[0]
        self.dual = self.retain.weight
        self._progress = 0.0

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the terms; see `RecipeObjective`."""
        self._progress = (batch.step + 1) / max(batch.num_steps, 1)
        return super().__call__(lm, batch, module)

    def terms(self, uses: tuple[TermUse, ...], answers: Mapping[str, Answers]) -> dict[str, Tensor]:
        """Return the terms, the retain term with its own value and lambda times its own gradient."""
        values = super().terms(uses, answers)
        if self.retain.label in values:
            plain = values[self.retain.label] / self.retain.weight
            values[self.retain.label] = plain.detach() + self.dual * (plain - plain.detach())
        return values

    def should_stop(self, terms: Mapping[str, float]) -> str | None:
        """Move lambda by the step's retain loss; the run never stops for it."""
        if self.retain.label in terms and self._progress > self.constraint.dual_warmup:
            self.dual = dual_ascent(
                self.dual,
                terms[self.retain.label],
                bound=self.constraint.retain_bound,
                rate=self.constraint.dual_rate,
            )
        return super().should_stop(terms)

    def state_dict(self) -> dict[str, Any]:
        """Return lambda."""
        return {"dual": self.dual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved lambda."""
        self.dual = float(state["dual"])
