"""Objectives whose sides share one mean: every row, or every token, of a batch counts alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import Recipe, TermUse
from finetune_baselines.recipes.options import IdkReduction
from finetune_baselines.terms import Answers

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["ConcatObjective", "RowObjective"]


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
        sizes = {kind: side.num_rows for kind, side in answers.items()}
        return _by_share(super().terms(uses, answers), uses, sizes)


class ConcatObjective(RecipeObjective):
    r"""L = (1 / N) sum_t w_t CE_t over all ``N`` answer tokens of a batch, refusals and retain rows alike.

    So the published code of IDK has it (``idk_reduction=concat_tokens``); otherwise the plain weighted sum.

    Args:
        recipe: Its terms must be means over tokens; has `IdkReduction`.
        start: As in `RecipeObjective`.
        seed: As in `RecipeObjective`.
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> None:
        super().__init__(recipe, start=start, seed=seed)
        self.is_joint = recipe.get(IdkReduction).idk_reduction == "concat_tokens"
        if self.is_joint:
            self.units = dict.fromkeys(self.units, "all_tokens")

    def terms(self, uses: tuple[TermUse, ...], answers: Mapping[str, Answers]) -> dict[str, Tensor]:
        """Return the terms; where the mean is shared, each side's sum divided by the tokens of the whole batch."""
        values = super().terms(uses, answers)
        if not self.is_joint:
            return values
        return _by_share(values, uses, {kind: len(side.targets) for kind, side in answers.items()})


def _by_share(
    values: Mapping[str, Tensor], uses: tuple[TermUse, ...], sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Scale each term's mean by the share that its rows have in the whole batch."""
    total = max(sum(sizes.values()), 1)
    return {use.label: values[use.label] * sizes[use.on] / total for use in uses}
