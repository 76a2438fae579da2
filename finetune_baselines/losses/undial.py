"""UNDIAL: distil from the start model with the gold token's logit pushed down."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["undial_loss"]


def undial_loss(logits: Tensor, reference_logits: Tensor, targets: Tensor, *, beta: float = 10.0) -> Tensor:
    r"""Self-distillation with adjusted logits (UNDIAL, arXiv:2402.10052, eq. 3).

    L = (1 / N) * sum_t CE(q_t, P_th),  q = softmax(z_ref - beta * e_y)

    The gradient on the logits is ``P_th - q``; the minimum is the entropy of q.

    Args:
        logits: Of the trained model at the positions that predict answer tokens, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.
        targets: The answer tokens, shape ``(N,)``.
        beta: How far the gold logit is pushed down.

    Returns:
        Scalar loss in nats, shape ``()``, > 0; exactly 0 where there is no token.
    """
    down = torch.full_like(targets, -1, dtype=torch.float32)[:, None] * beta
    adjusted = reference_logits.float().scatter_add(1, targets[:, None], down)
    teacher = torch.softmax(adjusted, dim=-1)
    return -mean_or_zero((teacher * torch.log_softmax(logits.float(), dim=-1)).sum(-1))
