"""Terms on whole next-token distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from eval.errors import ConfigError
from finetune_baselines import losses
from finetune_baselines.terms.base import Answers, Term

__all__ = ["TERMS", "KlOptions"]


@dataclass(frozen=True, kw_only=True)
class KlOptions:
    """Which way a divergence is taken.

    Raises:
        ConfigError: If the direction is unknown.
    """

    kl_direction: str = "ref_th"
    """``ref_th``: expectation under the start model (all public code); ``th_ref``: under the trained one."""

    def __post_init__(self) -> None:
        if self.kl_direction not in ("ref_th", "th_ref"):
            raise ConfigError(f"Unknown kl_direction {self.kl_direction!r}; use ref_th or th_ref.")


def _kl(answers: Answers, options: KlOptions) -> Tensor:
    assert answers.reference_logits is not None
    direction: Literal["ref_th", "th_ref"] = "th_ref" if options.kl_direction == "th_ref" else "ref_th"
    return losses.kl_loss(answers.logits, answers.reference_logits, direction=direction)


TERMS = {
    "kl": Term(compute=_kl, mean_over="tokens", reference="logits", options=KlOptions),
}
