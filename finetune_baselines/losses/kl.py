"""Kullback-Leibler divergence to the start model on answer positions: the retain term KL_r."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["gnm_kl_loss", "kl_loss"]


def kl_loss(
    logits: Tensor, reference_logits: Tensor, *, direction: Literal["ref_th", "th_ref"] = "ref_th"
) -> Tensor:
    r"""Mean divergence between the start model's and the trained model's next-token distributions.

    ref_th (TOFU's KL minimisation, arXiv:2401.06121, and all public code):
        L = (1 / N) * sum_t sum_v P_ref(v) * (log P_ref(v) - log P_th(v))
    th_ref (as arXiv:2404.05868 writes it): the roles exchanged.

    Args:
        logits: Of the trained model at the positions that predict answer tokens, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.
        direction: Which distribution the expectation is under.

    Returns:
        Scalar loss in nats, shape ``()``, >= 0; exactly 0 where there is no position.
    """
    trained = torch.log_softmax(logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    outer, inner = (reference, trained) if direction == "ref_th" else (trained, reference)
    return mean_or_zero((outer.exp() * (outer - inner)).sum(-1))


def gnm_kl_loss(logits: Tensor, reference_logits: Tensor) -> Tensor:
    r"""What GNM's published code computes as KL: probabilities where log-probabilities belong.

    L = (1 / N) * sum_t sum_v exp(P_ref(v)) * (P_ref(v) - P_th(v))

    0 at the start model, but linear in P_th: it is least, and negative, at one-hot argmax P_ref.

    Args:
        logits: Of the trained model, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.

    Returns:
        Scalar, shape ``()``; exactly 0 where there is no position.
    """
    trained = torch.softmax(logits.float(), dim=-1)
    reference = torch.softmax(reference_logits.float(), dim=-1)
    return mean_or_zero((reference.exp() * (reference - trained)).sum(-1))
