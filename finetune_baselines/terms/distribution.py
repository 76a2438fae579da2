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

__all__ = [
    "TERMS",
    "CeUOptions",
    "JensUnOptions",
    "JsOptions",
    "KlOptions",
    "KlfOptions",
    "PduOptions",
    "RenyiOptions",
    "UndialOptions",
]

_MASKS = ("answer", "all")


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
    kl_mask: Literal["answer", "all"] = "answer"
    """``all``: average over every position, prompts and padding included (code of arXiv:2404.05868, open-unlearning,
    arXiv:2503.21088)."""

    def __post_init__(self) -> None:
        require_one_of(
            self,
            kl_direction=("ref_th", "th_ref"),
            kl_mode=("full", "gold_token", "gnm_prob"),
            kl_mask=_MASKS,
        )
        if self.kl_mask == "all" and self.kl_mode == "gold_token":
            raise ConfigError("kl_mode=gold_token looks at answer tokens alone; leave out kl_mask=all.")


@dataclass(frozen=True, kw_only=True)
class KlfOptions(ForgetLimit):
    """Which divergence from the start model grows, and how far.

    Raises:
        ConfigError: If a value is out of range.
    """

    kl_mode: Literal["full", "gold_token", "gnm_prob"] = "full"
    """As in `KlOptions`; ``gnm_prob`` (bounded, so without a limit) holds here too, ``gold_token`` for retain alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of(self, kl_mode=("full", "gold_token", "gnm_prob"))


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
    undial_mask: Literal["answer", "all"] = "answer"
    """``all``: average over every position (open-unlearning); prompts and padding are then distilled unchanged."""

    def __post_init__(self) -> None:
        require_at_least_zero(self, "beta")
        require_one_of(self, undial_mask=_MASKS)


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
    jensun_target: Literal["cyclic", "multi_hot_all"] = "cyclic"
    """``multi_hot_all``: as the published code, a target of 1 on each of these tokens at every position, prompts and
    padding included; no divergence between distributions then."""

    def __post_init__(self) -> None:
        require_one_of(self, jensun_target=("cyclic", "multi_hot_all"))
        if not self.refusal_text.strip():
            raise ConfigError("refusal_text is empty; give the text whose tokens should be predicted.")


@dataclass(frozen=True, kw_only=True)
class JsOptions:
    """Settings of JensUn's retain term.

    Raises:
        ConfigError: If a value is unknown.
    """

    js_mask: Literal["answer", "all"] = "answer"
    """``all``: average over every position, prompts and padding included (the published code)."""

    def __post_init__(self) -> None:
        require_one_of(self, js_mask=_MASKS)


@dataclass(frozen=True, kw_only=True)
class PduOptions:
    """Settings of PDU's forget term.

    Raises:
        ConfigError: If a value is unknown.
    """

    pdu_shift: Literal["one", "none"] = "one"
    """``none``: flatten the logits at the answer tokens themselves, one later than those that predict them
    (open-unlearning)."""

    def __post_init__(self) -> None:
        require_one_of(self, pdu_shift=("one", "none"))


def _compared(answers: Answers, mask: str) -> tuple[Tensor, Tensor]:
    """Return the logits of both models at the positions that count, each of shape ``(N, V)``."""
    if mask == "all":
        assert answers.everywhere is not None
        logits, reference = answers.everywhere.logits, answers.everywhere.reference_logits
        assert reference is not None
        return logits.flatten(0, 1), reference.flatten(0, 1)
    assert answers.reference_logits is not None
    return answers.logits, answers.reference_logits


def _kl(answers: Answers, options: KlOptions) -> Tensor:
    if options.kl_mode == "gold_token":
        return losses.renyi_token_loss(answers.token_logps, _gold(answers), alpha=1.0)
    logits, reference = _compared(answers, options.kl_mask)
    if options.kl_mode == "gnm_prob":
        return losses.gnm_kl_loss(logits, reference)
    return losses.kl_loss(logits, reference, direction=options.kl_direction)


def _gold(answers: Answers) -> Tensor:
    """Answer-token log-probs of the start model from its logits, shape ``(N,)``."""
    assert answers.reference_logits is not None
    logps = torch.log_softmax(answers.reference_logits.float(), dim=-1)
    return logps.gather(1, answers.targets[:, None])[:, 0]


def _klf(answers: Answers, options: KlfOptions) -> Tensor:
    assert answers.reference_logits is not None
    if options.kl_mode == "gnm_prob":
        return -losses.gnm_kl_loss(answers.logits, answers.reference_logits)
    return losses.forget_kl_loss(answers.logits, answers.reference_logits, max_loss=options.clamp)


def _renyi(answers: Answers, options: RenyiOptions) -> Tensor:
    assert answers.reference_logits is not None
    if options.renyi_mode == "tokens":
        return losses.renyi_token_loss(answers.token_logps, _gold(answers), alpha=options.renyi_alpha)
    return losses.renyi_loss(answers.logits, answers.reference_logits, alpha=options.renyi_alpha)


def _js(answers: Answers, options: JsOptions) -> Tensor:
    return losses.js_loss(*_compared(answers, options.js_mask))


def _jensun(answers: Answers, options: JensUnOptions) -> Tensor:
    assert answers.tokenize is not None
    ids = answers.tokenize(options.refusal_text)
    if options.jensun_target == "multi_hot_all":
        assert answers.everywhere is not None
        once = torch.tensor(sorted(set(ids)), device=answers.logits.device)
        return losses.js_to_tokens_loss(answers.everywhere.logits.flatten(0, 1), once)
    wanted = torch.tensor(ids, device=answers.logits.device)
    return losses.js_to_token_loss(answers.logits, wanted[answers.places % len(wanted)])


def _undial(answers: Answers, options: UndialOptions) -> Tensor:
    assert answers.reference_logits is not None
    on_answers = losses.undial_loss(
        answers.logits, answers.reference_logits, answers.targets, beta=options.beta
    )
    if options.undial_mask == "answer":
        return on_answers
    every = answers.everywhere
    assert every is not None
    assert every.reference_logits is not None
    others = ~every.predicting
    others[:, -1:] = False  # the last position predicts nothing that is there
    teacher = torch.softmax(every.reference_logits[others], dim=-1)
    elsewhere = -(teacher * torch.log_softmax(every.logits[others].float(), dim=-1)).sum()
    return (on_answers * len(answers.targets) + elsewhere) / max(every.predicting[:, 1:].numel(), 1)


def _ce_u(answers: Answers, options: CeUOptions) -> Tensor:
    counted = answers.places >= options.skip_tokens
    values = answers.summed(losses.ce_u_loss(answers.logits, answers.targets) * counted)
    return mean_or_zero(values / answers.summed(counted).clamp(min=1))


def _ihl(answers: Answers, options: NoOptions) -> Tensor:
    return losses.inverted_hinge_loss(answers.logits, answers.targets)


def _pdu(answers: Answers, options: PduOptions) -> Tensor:
    if options.pdu_shift == "none":
        assert answers.everywhere is not None
        return losses.flatness_loss(answers.everywhere.logits[answers.everywhere.answer])
    return losses.flatness_loss(answers.logits)


TERMS = {
    "kl": Term(
        compute=_kl,
        mean_over="tokens",
        everywhere=lambda options: "padded" if options.kl_mask == "all" else None,
        reference="logits",
        options=KlOptions,
    ),
    "klf": Term(compute=_klf, mean_over="tokens", reference="logits", options=KlfOptions),
    "renyi": Term(compute=_renyi, mean_over="tokens", reference="logits", options=RenyiOptions),
    "js": Term(
        compute=_js,
        mean_over="tokens",
        everywhere=lambda options: "padded" if options.js_mask == "all" else None,
        reference="logits",
        options=JsOptions,
    ),
    "jensun": Term(
        compute=_jensun,
        mean_over="tokens",
        everywhere=lambda options: "padded" if options.jensun_target == "multi_hot_all" else None,
        options=JensUnOptions,
    ),
    "undial": Term(
        compute=_undial,
        mean_over="tokens",
        everywhere=lambda options: "padded" if options.undial_mask == "all" else None,
        reference="logits",
        options=UndialOptions,
    ),
    "ce-u": Term(compute=_ce_u, mean_over="rows", options=CeUOptions),
    "ihl": Term(compute=_ihl, mean_over="tokens"),
    "pdu": Term(
        compute=_pdu,
        mean_over="tokens",
        everywhere=lambda options: "labelled" if options.pdu_shift == "none" else None,
        options=PduOptions,
    ),
}
"""CE-U averages over rows each row's mean, so that leaving out first tokens does not depend on the micro-batch."""
