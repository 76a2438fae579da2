"""Settings of recipes that belong to no single loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eval.errors import ConfigError
from finetune_baselines.terms.base import require_above_zero, require_at_least_zero, require_one_of

__all__ = ["DualOptions", "GnmTemplate", "IdkReduction", "RandomMatching"]


@dataclass(frozen=True, kw_only=True)
class RandomMatching:
    """How many random retain answers stand after a forget question.

    Raises:
        ConfigError: If it is below 1.
    """

    random_answers: int = 1
    """K: 1 in GNM, 5 in arXiv:2310.10683."""

    def __post_init__(self) -> None:
        if self.random_answers < 1:
            raise ConfigError(f"random_answers is {self.random_answers}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class DualOptions:
    """The constraint of primal-dual unlearning; its first multiplier is the retain term's weight.

    Raises:
        ConfigError: If a value is out of range.
    """

    retain_bound: float = 0.3
    """Epsilon, nats a token: what the retain loss may be. Choose it above the retain loss at the start."""
    dual_rate: float = 5.0
    """Eta: how fast the multiplier follows a broken bound, per step."""
    dual_warmup: float = 0.5
    """Share of the run before the multiplier moves (published: 5 of 10 epochs)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "retain_bound", "dual_rate")
        require_at_least_zero(self, "dual_warmup")


@dataclass(frozen=True, kw_only=True)
class IdkReduction:
    """How refusals and retain rows are weighed against each other.

    Raises:
        ConfigError: If the value is unknown.
    """

    idk_reduction: Literal["separate", "concat_tokens"] = "separate"
    """``separate``: a mean over each side's tokens, so that both sides count alike; ``concat_tokens``: one mean over
    the tokens of both, where short refusals count less (code of arXiv:2404.05868)."""

    def __post_init__(self) -> None:
        require_one_of(self, idk_reduction=("separate", "concat_tokens"))


@dataclass(frozen=True, kw_only=True)
class GnmTemplate:
    """The wording around every answer that GNM's published code trains on."""

    gnm_template: bool = False
    """Train on ``>> ANSWER is the answer.`` in place of the answer; the loss covers the wording too."""

    def worded(self, answer: str) -> str:
        """Return the text that is trained on."""
        return f">> {answer} is the answer." if self.gnm_template else answer
