"""Terms on two answers to the same questions: what to forget, and what to say instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from finetune_baselines import losses
from finetune_baselines.terms.base import Answers, Term, require_above_zero, require_one_of

__all__ = ["TERMS", "DpoOptions", "FlatOptions", "KtoOptions"]


@dataclass(frozen=True, kw_only=True)
class DpoOptions:
    """Settings of DPO.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 0.1
    """Inverse temperature."""
    dpo_scale: Literal["unlearning", "none"] = "unlearning"
    """``unlearning``: with the factor 2 / beta; ``none``: the original loss."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")
        require_one_of(self, dpo_scale=("unlearning", "none"))


@dataclass(frozen=True, kw_only=True)
class KtoOptions:
    """Settings of KTO.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 0.1
    """Inverse temperature."""
    kto_form: Literal["logsigmoid", "sigmoid"] = "logsigmoid"
    """``sigmoid``: the bounded form."""
    kto_ref: Literal["unlearning", "original"] = "unlearning"
    """``original``: the zero point inside the beta and never below 0 (arXiv:2402.01306)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")
        require_one_of(self, kto_form=("logsigmoid", "sigmoid"), kto_ref=("unlearning", "original"))


@dataclass(frozen=True, kw_only=True)
class FlatOptions:
    """Settings of FLAT.

    Raises:
        ConfigError: If a value is unknown.
    """

    divergence: str = "tv"
    """tv, kl, js, pearson or jeffrey."""
    flat_mean: Literal["answer", "all_positions"] = "answer"
    """``all_positions``: as published code, divide by all padded positions, so by how much of a row is answer."""

    def __post_init__(self) -> None:
        require_one_of(self, divergence=tuple(losses.DIVERGENCES), flat_mean=("answer", "all_positions"))


def _dpo(loser: Answers, options: DpoOptions, winner: Answers) -> Tensor:
    return losses.dpo_loss(
        winner.sequence_logps,
        winner.reference_sequence_logps,
        loser.sequence_logps,
        loser.reference_sequence_logps,
        beta=options.beta,
        scaled=options.dpo_scale == "unlearning",
    )


def _kto(answers: Answers, options: KtoOptions, anchor: Answers) -> Tensor:
    return losses.kto_loss(
        answers.sequence_logps,
        answers.reference_sequence_logps,
        anchor.sequence_logps,
        anchor.reference_sequence_logps,
        beta=options.beta,
        form=options.kto_form,
        anchor=options.kto_ref,
    )


def _flat(answers: Answers, options: FlatOptions, template: Answers) -> Tensor:
    def mean_probs(side: Answers) -> Tensor:
        probabilities = side.token_logps.exp()
        if options.flat_mean == "all_positions":
            return side.summed(probabilities) / max(side.num_positions, 1)
        return side.averaged(probabilities)

    return losses.flat_loss(mean_probs(template), mean_probs(answers), divergence=options.divergence)


TERMS = {
    "dpo": Term(compute=_dpo, mean_over="rows", reference="logps", options=DpoOptions),
    "kto": Term(compute=_kto, mean_over="rows", reference="logps", options=KtoOptions),
    "flat": Term(compute=_flat, mean_over="rows", options=FlatOptions),
}
"""KTO's zero point and FLAT's two means are taken over a micro-batch."""
