"""Terms on hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from finetune_baselines import losses
from finetune_baselines.terms.base import (
    Answers,
    Hidden,
    Term,
    require_above_zero,
    require_at_least_zero,
    require_one_of,
)

__all__ = ["TERMS", "RmuOptions"]


@dataclass(frozen=True, kw_only=True)
class RmuOptions:
    """Settings of RMU.

    Raises:
        ConfigError: If a value is out of range.
    """

    rmu_layer: int | None = None
    """Decoder block whose output is steered, from 0; null: 7, or 7/16 of the depth in shallower models."""
    coefficient: float = 6.5
    """Length of the vector that forget states are steered to."""
    rmu_modules: str = "mlp.down_proj"
    """What trains, in blocks layer - 2 to layer; ``all``: every parameter of the model."""
    rmu_mask: Literal["tokens", "answer", "all"] = "tokens"
    """Positions that count: real tokens; those that predict an answer token; all, padding included (the original)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "coefficient")
        if self.rmu_layer is not None:
            require_at_least_zero(self, "rmu_layer")
        require_one_of(self, rmu_mask=("tokens", "answer", "all"))

    def layer(self, num_blocks: int) -> int:
        """Return the block to read in a model of ``num_blocks``."""
        scaled = 7 if num_blocks >= 16 else round(num_blocks * 7 / 16)
        return scaled if self.rmu_layer is None else self.rmu_layer

    def trained(self, num_blocks: int) -> tuple[range, str] | None:
        """Return the blocks and modules that train, or ``None`` for all."""
        if self.rmu_modules == "all":
            return None
        layer = self.layer(num_blocks)
        return range(max(0, layer - 2), layer + 1), self.rmu_modules

    def mask(self, hidden: Hidden) -> Tensor:
        """Return the positions that count, shape ``(B, T)``."""
        if self.rmu_mask == "all":
            return hidden.mask.new_ones(hidden.mask.shape)
        return hidden.mask if self.rmu_mask == "tokens" else hidden.predicting


def _rmu(answers: Answers, options: RmuOptions) -> Tensor:
    hidden = answers.hidden
    assert hidden is not None
    direction = losses.rmu_direction(hidden.trained.shape[-1], answers.seed)
    return losses.rmu_loss(hidden.trained, options.mask(hidden), direction, coefficient=options.coefficient)


def _embedding(answers: Answers, options: RmuOptions) -> Tensor:
    hidden = answers.hidden
    assert hidden is not None
    assert hidden.start is not None
    return losses.embedding_distance(hidden.trained, hidden.start, options.mask(hidden))


TERMS = {
    "rmu": Term(
        compute=_rmu,
        mean_over="rows",
        options=RmuOptions,
        layer=RmuOptions.layer,
        trains=RmuOptions.trained,
    ),
    "embed-diff": Term(
        compute=_embedding,
        mean_over="rows",
        reference="hidden",
        options=RmuOptions,
        layer=RmuOptions.layer,
    ),
}
"""Terms that read hidden states."""
