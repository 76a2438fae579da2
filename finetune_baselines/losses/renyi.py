"""Renyi divergence to the start model on answer positions."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["renyi_loss", "renyi_token_loss"]


def renyi_loss(logits: Tensor, reference_logits: Tensor, *, alpha: float = 0.5) -> Tensor:
    r"""Mean Renyi divergence of order alpha over the whole vocabulary (Clausen 2025, University of Oslo).

    L = (1 / N) * sum_t 1 / (alpha - 1) * log sum_v P_th(v)^alpha * P_ref(v)^(1 - alpha)

    alpha = 1/2 is symmetric: -2 log sum sqrt(P_th P_ref); alpha = 1 is the limit KL(P_th || P_ref).

    Args:
        logits: Of the trained model at the positions that predict answer tokens, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.
        alpha: Order, > 0.

    Returns:
        Scalar loss in nats, shape ``()``, >= 0; exactly 0 where there is no position.
    """
    trained = torch.log_softmax(logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    if alpha == 1:
        return mean_or_zero((trained.exp() * (trained - reference)).sum(-1))
    return mean_or_zero(torch.logsumexp(alpha * trained + (1 - alpha) * reference, dim=-1) / (alpha - 1))


def renyi_token_loss(logps: Tensor, reference_logps: Tensor, *, alpha: float = 0.5) -> Tensor:
    r"""What Clausen's published code computes instead: one sum over all answer tokens, gold tokens only.

    L = 1 / (alpha - 1) * log sum_t p_t^alpha * p_ref,t^(1 - alpha); alpha = 1: mean(p_ref * (log p_ref - log p))

    Not a divergence: it may be negative, and at the start model it pulls like a probability-weighted cross-entropy.

    Args:
        logps: Log-probs (nats) of the answer tokens of the whole batch, shape ``(N,)``.
        reference_logps: The same under the start model, no gradient, shape ``(N,)``.
        alpha: Order, > 0.

    Returns:
        Scalar, shape ``()``; exactly 0 where there is no token.
    """
    if alpha == 1:
        return mean_or_zero(reference_logps.exp() * (reference_logps - logps))
    if not logps.numel():
        return logps.sum()
    return torch.logsumexp(alpha * logps + (1 - alpha) * reference_logps, dim=0) / (alpha - 1)
