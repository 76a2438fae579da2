"""Terms on whole next-token distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eval.errors import ConfigError
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

__all__ = ["TERMS", "CeUOptions", "JensUnOptions", "KlOptions", "RenyiOptions", "UndialOptions"]


@dataclass(frozen=True, kw_only=True)
class KlOptions:
    """Which divergence to the start model.

    Raises:
        ConfigError: If a value is unknown.
    """

    kl_direction: Literal["ref_th", "th_ref"] = "ref_th"
    """``ref_th``: expectation under the start model (all public code); ``th_ref``: under the trained one."""
    kl_mode: Literal["full", "gold_token", "gnm_prob"] = "full"
    """``full``: a KL divergence. As published elsewhere, and none: ``gold_token`` (arXiv:2503.13690's code: the
    answer token's share of it), ``gnm_prob`` (GNM's code: probabilities in place of log-probabilities)."""

    def __post_init__(self) -> None:
        require_one_of(self, kl_direction=("ref_th", "th_ref"), kl_mode=("full", "gold_token", "gnm_prob"))


@dataclass(frozen=True, kw_only=True)
class RenyiOptions:
    """Settings of the Renyi divergence.

    Raises:
        ConfigError: If a value is out of range.
    """

    renyi_alpha: float = 0.5
    """Order; 1/2 is symmetric, 1 is KL(trained || start)."""
    renyi_mode: Literal["full", "tokens"] = "full"
    """``tokens``: as Clausen's code, one sum over the answer tokens alone; no divergence."""

    def __post_init__(self) -> None:
        require_above_zero(self, "renyi_alpha")
        require_one_of(self, renyi_mode=("full", "tokens"))


@dataclass(frozen=True, kw_only=True)
class UndialOptions:
    """Settings of UNDIAL.

    Raises:
        ConfigError: If a value is out of range.
    """

    beta: float = 10.0
    """How far the gold token's logit is pushed down in the teacher (published: 3 to 30)."""

    def __post_init__(self) -> None:
        require_at_least_zero(self, "beta")


@dataclass(frozen=True, kw_only=True)
class CeUOptions:
    """Settings of CE-U.

    Raises:
        ConfigError: If a value is out of range.
    """

    skip_tokens: int = 1
    """First tokens of an answer that are left alone."""

    def __post_init__(self) -> None:
        require_at_least_zero(self, "skip_tokens")


@dataclass(frozen=True, kw_only=True)
class JensUnOptions:
    """Settings of JensUn's forget term.

    Raises:
        ConfigError: If the text is empty.
    """

    refusal_text: str = "No idea"
    """Its tokens, repeated in a circle, are what the positions of a forget answer should predict."""

    def __post_init__(self) -> None:
        if not self.refusal_text.strip():
            raise ConfigError("refusal_text is empty; give the text whose tokens should be predicted.")


def _kl(answers: Answers, options: KlOptions) -> Tensor:
    assert answers.reference_logits is not None
    if options.kl_mode == "gnm_prob":
        return losses.gnm_kl_loss(answers.logits, answers.reference_logits)
    if options.kl_mode == "gold_token":
        return losses.renyi_token_loss(answers.token_logps, _gold(answers), alpha=1.0)
    return losses.kl_loss(answers.logits, answers.reference_logits, direction=options.kl_direction)


def _gold(answers: Answers) -> Tensor:
    """Answer-token log-probs of the start model from its logits, shape ``(N,)``."""
    assert answers.reference_logits is not None
    logps = torch.log_softmax(answers.reference_logits.float(), dim=-1)
    return logps.gather(1, answers.targets[:, None])[:, 0]


def _klf(answers: Answers, options: ForgetLimit) -> Tensor:
    assert answers.reference_logits is not None
    return losses.forget_kl_loss(answers.logits, answers.reference_logits, max_loss=options.clamp)


def _renyi(answers: Answers, options: RenyiOptions) -> Tensor:
    assert answers.reference_logits is not None
    if options.renyi_mode == "tokens":
        return losses.renyi_token_loss(answers.token_logps, _gold(answers), alpha=options.renyi_alpha)
    return losses.renyi_loss(answers.logits, answers.reference_logits, alpha=options.renyi_alpha)


def _js(answers: Answers, options: NoOptions) -> Tensor:
    assert answers.reference_logits is not None
    return losses.js_loss(answers.logits, answers.reference_logits)


def _jensun(answers: Answers, options: JensUnOptions) -> Tensor:
    assert answers.tokenize is not None
    wanted = torch.tensor(answers.tokenize(options.refusal_text), device=answers.logits.device)
    return losses.js_to_token_loss(answers.logits, wanted[answers.places % len(wanted)])


def _undial(answers: Answers, options: UndialOptions) -> Tensor:
    assert answers.reference_logits is not None
    return losses.undial_loss(answers.logits, answers.reference_logits, answers.targets, beta=options.beta)


def _ce_u(answers: Answers, options: CeUOptions) -> Tensor:
    counted = answers.places >= options.skip_tokens
    values = answers.summed(losses.ce_u_loss(answers.logits, answers.targets) * counted)
    return mean_or_zero(values / answers.summed(counted).clamp(min=1))


def _ihl(answers: Answers, options: NoOptions) -> Tensor:
    return losses.inverted_hinge_loss(answers.logits, answers.targets)


def _pdu(answers: Answers, options: NoOptions) -> Tensor:
    return losses.flatness_loss(answers.logits)


TERMS = {
    "kl": Term(compute=_kl, mean_over="tokens", reference="logits", options=KlOptions),
    "klf": Term(compute=_klf, mean_over="tokens", reference="logits", options=ForgetLimit),
    "renyi": Term(compute=_renyi, mean_over="tokens", reference="logits", options=RenyiOptions),
    "js": Term(compute=_js, mean_over="tokens", reference="logits"),
    "jensun": Term(compute=_jensun, mean_over="tokens", options=JensUnOptions),
    "undial": Term(compute=_undial, mean_over="tokens", reference="logits", options=UndialOptions),
    "ce-u": Term(compute=_ce_u, mean_over="rows", options=CeUOptions),
    "ihl": Term(compute=_ihl, mean_over="tokens"),
    "pdu": Term(compute=_pdu, mean_over="tokens"),
}
"""CE-U averages over rows each row's mean, so that leaving out first tokens does not depend on the micro-batch."""
