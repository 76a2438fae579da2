"""KLF: push the whole next-token distribution on forget answers away from the start model's, without end."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["forget_kl_loss"]


def forget_kl_loss(logits: Tensor, reference_logits: Tensor, *, max_loss: float | None = None) -> Tensor:
    r"""Forget-KL maximisation (the term ``klf`` of Gradual Negative Matching, 10.1007/978-3-031-88714-7_16).

    L = -(1 / N) * sum_t KL(P_ref || P_th), unbounded below;
    with a clamp, L = -(1 / N) * sum_t min(KL_t, max_loss)

    At the start model both the value and the gradient are 0, so it needs another term to start moving.

    Args:
        logits: Of the trained model at the positions that predict answer tokens, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.
        max_loss: Positions whose divergence (nats) is above it are left alone: their gradient is 0.

    Returns:
        Scalar loss in nats, shape ``()``, <= 0; exactly 0 where there is no position.
    """
    trained = torch.log_softmax(logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    divergence = (reference.exp() * (reference - trained)).sum(-1)
    return -mean_or_zero(divergence if max_loss is None else divergence.clamp(max=max_loss))
