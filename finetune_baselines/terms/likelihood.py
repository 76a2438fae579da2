"""Terms on the likelihood of one answer to each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from finetune_baselines import losses
from finetune_baselines.losses.reduction import mean_or_zero
from finetune_baselines.terms.base import (
    Answers,
    ForgetLimit,
    NoOptions,
    Term,
    require_above_zero,
    require_at_least_zero,
    require_one_of,
)

__all__ = ["TERMS", "NpoOptions", "SatImpOptions", "SimNpoOptions", "TokenNpoOptions", "WgaOptions"]


@dataclass(frozen=True, kw_only=True)
class NpoOptions:
    """Settings of NPO.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 0.1
    """Inverse temperature; towards 0 the loss tends to gradient ascent."""
    npo_level: Literal["sequence", "batch_mean"] = "sequence"
    """``batch_mean``: one log-ratio a batch, of token means (WMDP code); it needs a beta of its own."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")
        require_one_of(self, npo_level=("sequence", "batch_mean"))


@dataclass(frozen=True, kw_only=True)
class TokenNpoOptions:
    """Settings of token-level NPO.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 0.5
    """Inverse temperature."""
    token_form: Literal["npo", "tnpo"] = "npo"
    """``npo``: the loss itself; ``tnpo``: weighted ascent with the same gradient, as in arXiv:2502.19301."""
    power: float = 0.0
    """``tnpo`` only: further exponent of the token's probability; above 0 it is WTNPO."""
    tnpo_eps: float = 0.0
    """``tnpo`` only: added to the weight's denominator (1e-5 in the authors' code)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")
        require_at_least_zero(self, "power", "tnpo_eps")
        require_one_of(self, token_form=("npo", "tnpo"))


@dataclass(frozen=True, kw_only=True)
class SimNpoOptions:
    """Settings of SimNPO.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 2.5
    """Inverse temperature."""
    gamma: float = 0.0
    """Reward margin; 0 in all published runs."""
    simnpo_margin: Literal["outside", "inside"] = "outside"
    """Whether beta multiplies the margin too (``inside``: the paper's TOFU code)."""
    simnpo_level: Literal["sequence", "batch_mean"] = "sequence"
    """``batch_mean``: one mean a batch (WMDP code)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")
        require_at_least_zero(self, "gamma")
        require_one_of(self, simnpo_margin=("outside", "inside"), simnpo_level=("sequence", "batch_mean"))


@dataclass(frozen=True, kw_only=True)
class WgaOptions:
    """Settings of weighted gradient ascent.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 1.0
    """Exponent of a token's own probability in its weight."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta")


@dataclass(frozen=True, kw_only=True)
class SatImpOptions:
    """Settings of SatImp.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta1: float = 5.0
    """Exponent of p in a token's weight (saturation)."""
    beta2: float = 1.0
    """Exponent of 1 - p (importance)."""

    def __post_init__(self) -> None:
        require_above_zero(self, "beta1")
        require_at_least_zero(self, "beta2")


def _ce(answers: Answers, options: NoOptions) -> Tensor:
    return losses.cross_entropy_loss(answers.token_logps)


def _ce_rows(answers: Answers, options: NoOptions) -> Tensor:
    return losses.cross_entropy_loss(answers.averaged(answers.token_logps))


def _ga(answers: Answers, options: ForgetLimit) -> Tensor:
    return losses.gradient_ascent_loss(answers.token_logps, max_loss=options.clamp)


def _ga_rows(answers: Answers, options: ForgetLimit) -> Tensor:
    clamp = options.clamp
    logps = answers.token_logps if clamp is None else answers.token_logps.clamp(min=-clamp)
    return losses.gradient_ascent_loss(answers.averaged(logps))


def _npo(answers: Answers, options: NpoOptions) -> Tensor:
    assert answers.reference_token_logps is not None
    if options.npo_level == "batch_mean":
        own, start = mean_or_zero(answers.token_logps), mean_or_zero(answers.reference_token_logps)
        some = slice(min(answers.num_rows, 1))
        return losses.npo_loss(own[None][some], start[None][some], beta=options.beta)
    return losses.npo_loss(answers.sequence_logps, answers.reference_sequence_logps, beta=options.beta)


def _token_npo(answers: Answers, options: TokenNpoOptions) -> Tensor:
    assert answers.reference_token_logps is not None
    own, start = answers.token_logps, answers.reference_token_logps
    if options.token_form == "npo":
        return losses.token_npo_loss(own, start, beta=options.beta)
    return losses.weighted_token_npo_loss(
        own, start, beta=options.beta, power=options.power, eps=options.tnpo_eps
    )


def _simnpo(answers: Answers, options: SimNpoOptions) -> Tensor:
    nlls = -answers.averaged(answers.token_logps)
    if options.simnpo_level == "batch_mean":
        nlls = -mean_or_zero(answers.token_logps)[None][: min(answers.num_rows, 1)]
    return losses.simnpo_loss(nlls, beta=options.beta, gamma=options.gamma, margin=options.simnpo_margin)


def _wga(answers: Answers, options: WgaOptions) -> Tensor:
    return losses.wga_loss(answers.token_logps, beta=options.beta)


def _satimp(answers: Answers, options: SatImpOptions) -> Tensor:
    return losses.satimp_loss(answers.token_logps, beta1=options.beta1, beta2=options.beta2)


TERMS = {
    "ce": Term(compute=_ce, mean_over="tokens"),
    "ce-rows": Term(compute=_ce_rows, mean_over="rows"),
    "ga": Term(compute=_ga, mean_over="tokens", options=ForgetLimit),
    "ga-rows": Term(compute=_ga_rows, mean_over="rows", options=ForgetLimit),
    "npo": Term(compute=_npo, mean_over="rows", reference="logps", options=NpoOptions),
    "npo-token": Term(compute=_token_npo, mean_over="tokens", reference="logps", options=TokenNpoOptions),
    "simnpo": Term(compute=_simnpo, mean_over="rows", options=SimNpoOptions),
    "wga": Term(compute=_wga, mean_over="tokens", options=WgaOptions),
    "satimp": Term(compute=_satimp, mean_over="tokens", options=SatImpOptions),
}
"""``-rows``: the mean over rows of each row's token mean, where papers weigh rows and not tokens (GNM, SUGD)."""
