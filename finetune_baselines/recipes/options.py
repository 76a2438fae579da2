"""Settings of recipes that belong to no single loss."""

from __future__ import annotations

from dataclasses import dataclass

from eval.errors import ConfigError

__all__ = ["RandomMatching"]


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
