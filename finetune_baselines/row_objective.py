"""The objective of sequential unlearning: every row of a batch counts alike, with a factor for its side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import Recipe, TermUse
from finetune_baselines.terms import Answers

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["RowObjective"]


class RowObjective(RecipeObjective):
    r"""L = (1 / B) sum_i f_i L_i over all ``B`` rows of a batch, forget and retain alike (arXiv:2503.02443).

    f_i is the weight of the row's term; L_i is the term on that row (a mean over its tokens, negative for ascent).
    A side's share of the batch therefore scales its term: with one forget and seven retain rows,
    ``-CE_f / 8 + weight * 7/8 * mean CE_r``.

    Args:
        recipe: Its terms must be means over rows.
        start: As in `RecipeObjective`.
        seed: As in `RecipeObjective`.
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> None:
        super().__init__(recipe, start=start, seed=seed)
        self.units = dict.fromkeys(self.units, "all_rows")

    def terms(self, uses: tuple[TermUse, ...], answers: Mapping[str, Answers]) -> dict[str, Tensor]:
        """Return each term's sum over its rows, divided by the rows of the whole batch."""
        total = sum(side.num_rows for side in answers.values())
        values = super().terms(uses, answers)
        return {use.label: values[use.label] * answers[use.on].num_rows / max(total, 1) for use in uses}
