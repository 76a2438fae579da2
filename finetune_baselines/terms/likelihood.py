"""Terms on the likelihood of answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from finetune_baselines import losses
from finetune_baselines.terms.base import Answers, ForgetLimit, NoOptions, Term, require_above_zero

__all__ = ["TERMS", "Beta"]


@dataclass(frozen=True, kw_only=True)
class Beta:
    """Sharpness of a preference loss.

    Raises:
        ConfigError: If it is not above 0.
    """

    beta: float = 0.1
    """Inverse temperature; towards 0 the loss tends to gradient ascent."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")


def _ga(answers: Answers, options: ForgetLimit) -> Tensor:
    return losses.gradient_ascent_loss(answers.token_logps, max_loss=options.clamp)


def _ce(answers: Answers, options: NoOptions) -> Tensor:
    return losses.cross_entropy_loss(answers.token_logps)


def _npo(answers: Answers, options: Beta) -> Tensor:
    return losses.npo_loss(answers.sequence_logps, answers.reference_sequence_logps, beta=options.beta)


TERMS = {
    "ce": Term(compute=_ce, mean_over="tokens"),
    "ga": Term(compute=_ga, mean_over="tokens", options=ForgetLimit),
    "npo": Term(compute=_npo, mean_over="rows", reference="logps", options=Beta),
}
