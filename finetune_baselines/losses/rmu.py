"""RMU: steer the hidden states of forget rows to a random direction, keep those of retain rows."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import masked_mean

__all__ = ["embedding_distance", "rmu_direction", "rmu_loss"]


def rmu_direction(size: int, seed: int) -> Tensor:
    """Draw the fixed direction ``u``: uniform in [0, 1), then of length 1.

    Args:
        size: Hidden size ``D``.
        seed: Of the run.

    Returns:
        Shape ``(D,)``, on the CPU; the process's random state is left alone.
    """
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed % 2**63))
    direction: Tensor = drawn / drawn.norm()
    return direction


def rmu_loss(hidden: Tensor, mask: Tensor, direction: Tensor, *, coefficient: float) -> Tensor:
    r"""Representation misdirection for unlearning, forget part (arXiv:2403.03218, section 4).

    L = mean over rows, tokens and dimensions of (h - c * u)^2

    Args:
        hidden: Hidden states of one layer for forget rows, shape ``(B, T, D)``.
        mask: Tokens that count, shape ``(B, T)``.
        direction: ``u``, of length 1, shape ``(D,)``.
        coefficient: ``c``, > 0.

    Returns:
        Scalar loss, shape ``()``, >= 0, 0 iff every h = c u; exactly 0 where there is no row.
    """
    return embedding_distance(hidden, coefficient * direction.to(hidden), mask)


def embedding_distance(hidden: Tensor, goal: Tensor, mask: Tensor) -> Tensor:
    r"""RMU's retain part: mean squared distance of hidden states to given ones.

    L = mean over rows, tokens and dimensions of (h - h_goal)^2

    Args:
        hidden: Of the trained model, shape ``(B, T, D)``.
        goal: Broadcastable to it, no gradient.
        mask: Tokens that count, shape ``(B, T)``.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no row.
    """
    return masked_mean((hidden.float() - goal.float()).square().mean(-1), mask)
