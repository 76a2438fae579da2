"""Settings of the guard: what may be chosen, and what each choice means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eval.errors import ConfigError
from guard.encoder import DEFAULT_ENCODER

__all__ = ["POLICIES", "GuardSettings", "Policy", "check_policy"]

Policy = Literal["restrict", "refuse", "monitor"]
"""What happens to a flagged prompt: the answer goes on without the phrases, a refusal is returned, or it is only
noted."""

POLICIES: tuple[str, ...] = get_args(Policy)
"""Names of the policies."""


def check_policy(policy: str) -> Policy:
    """Return ``policy`` if it is one.

    Raises:
        ConfigError: If it is not.
    """
    if policy not in POLICIES:
        raise ConfigError(f"Unknown guard policy {policy!r}; use one of {', '.join(POLICIES)}.")
    return policy  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """How a guard is built.

    Raises:
        ConfigError: If a value is out of range.
    """

    encoder: str = DEFAULT_ENCODER
    """Sentence encoder, by hub name or local folder."""
    features: Literal["encoder", "hidden"] = "encoder"
    """What texts are compared by: the sentence encoder's vectors, or the target model's own hidden states, as in the
    paper; the latter need the model at building and loading and fit it alone."""
    layer: int = -2
    """Which hidden state, with ``features="hidden"``; the paper's is the one before the last."""
    false_positive_rate: float = 0.005
    """Share of held-out innocent prompts the gate may flag: the threshold is calibrated to it; in (0, 0.5)."""
    max_retain: int = 480
    """Retain examples the gate keeps as neighbours and learns from, and half as many background ones; at least 0."""
    max_rewordings: int = 180
    """Rule-made rewordings of forget questions the classifier learns from, and as many of innocent ones."""
    num_neighbours: int = 16
    """Nearest retain answers an answer is contrasted with when its phrases are extracted; at least 1."""
    index: Literal["exact", "ivf"] = "exact"
    """How stored vectors are searched: ``exact`` at every size, or ``ivf`` with the recall below, for stores of
    hundreds of thousands of entries."""
    min_recall: float = 0.999
    """Share of nearest neighbours an ``ivf`` index must be measured to find; in (0, 1]."""
    private: bool = False
    """Whether only embeddings and keyed hashes of words are kept, no readable text. Typing errors in names are then
    not recognised, and the gate keeps the weights it was first given."""
    seed: int = 0
    """Of the samples above."""

    def __post_init__(self) -> None:
        if not 0 < self.false_positive_rate < 0.5:
            raise ConfigError(
                f"false_positive_rate is {self.false_positive_rate}; it must lie between 0 and 0.5, both excluded."
            )
        if not 0 < self.min_recall <= 1:
            raise ConfigError(f"min_recall is {self.min_recall}; it must lie between 0 and 1.")
        if self.features not in ("encoder", "hidden"):
            raise ConfigError(f"features is {self.features!r}; it must be 'encoder' or 'hidden'.")
        if self.index not in ("exact", "ivf"):
            raise ConfigError(f"index is {self.index!r}; it must be 'exact' or 'ivf'.")
        for name, least in (("max_retain", 0), ("max_rewordings", 0), ("num_neighbours", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
