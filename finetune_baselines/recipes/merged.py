"""Methods that train two adapters, one that forgets too much and one that forgets too little, and merge them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eval.errors import ConfigError
from finetune_baselines.recipes.base import LoraSettings, Recipe, forget, retain
from finetune_baselines.terms.base import require_one_of
from finetune_baselines.training import TrainSettings

__all__ = ["RECIPES", "TiesOptions"]


@dataclass(frozen=True, kw_only=True)
class TiesOptions:
    """The second adapter, and how the two are merged; the first has the recipe's own weights.

    Raises:
        ConfigError: If a value is out of range.
    """

    under_forget_weight: float = 0.3
    """Weight of the forget term in the second run, which forgets less."""
    under_kl_weight: float = 0.3
    """Weight of its retain divergence."""
    under_rt_weight: float = 0.4
    """Weight of its retain cross-entropy."""
    under_batch_factor: int = 2
    """Its batches are so many times as large (and its steps so many times fewer)."""
    density: float = 0.8
    """Share of each change that is kept, the largest entries first."""
    over_share: float = 1.0
    """What the first change is multiplied by when it is merged."""
    under_share: float = 1.0
    """What the second is multiplied by."""
    ties_space: Literal["dense", "factors"] = "dense"
    """Merge the changes of the weights, or the factors A and B each on their own (published code; the result then
    depends on the basis that training happened to find)."""
    merge_rank: int | None = None
    """Keep the merged change as an adapter of this rank instead of in the weights; the error is reported."""

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise ConfigError(f"density is {self.density}; it must lie between 0 and 1.")
        names = ("under_forget_weight", "under_kl_weight", "under_rt_weight", "over_share", "under_share")
        for name in names:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or above.")
        if self.under_batch_factor < 1 or (self.merge_rank is not None and self.merge_rank < 1):
            raise ConfigError("under_batch_factor and merge_rank must be at least 1.")
        require_one_of(self, ties_space=("dense", "factors"))


RECIPES = (
    Recipe(
        name="ties",
        summary="Merges an adapter that forgets too much with one that forgets too little (trim, elect sign, average)",
        paper="arXiv:2503.21088; TIES arXiv:2306.01708",
        terms=(
            forget("npo", weight=0.4),
            retain("kl", weight=0.4, name="kl"),
            retain("ce", weight=0.2, name="rt"),
        ),
        options={"npo_level": "batch_mean"},
        extras=(TiesOptions,),
        parametrization="lora",
        paper_settings=TrainSettings(learning_rate=1e-4, epochs=5, batch_size=4),
        paper_lora=LoraSettings(rank=32, alpha=32.0, dropout=0.05),
        scratch={
            "npo_level": "sequence",
            "batch_size": 8,
            "epochs": 12,
            "retain_per_forget": 2,
            "kl_weight": 1.2,
            "under_kl_weight": 1.2,
            "rt_weight": 0.8,
            "under_rt_weight": 1.2,
        },
        scratch_lora={"learning_rate": 1e-3, "rank": 16, "alpha": 32.0},
    ),
)
"""The recipes of this family."""
