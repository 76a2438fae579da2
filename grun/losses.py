"""Losses of the gate and the schedule that lets the gate learn first."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["edit_weight", "gate_losses"]


def gate_losses(gate_logits: Tensor, num_forget: int) -> tuple[Tensor, Tensor]:
    r"""Binary cross-entropy of the gates (arXiv:2502.17823, section 3.2), on logits, in its two halves.

    L_gate = (open + shut) / 2, with open the mean of -log sigmoid(g) over layers and forget rows, and shut the
    mean of -log(1 - sigmoid(g)) over layers and all other rows: both sides count the same, however many
    negatives a batch holds.

    Args:
        gate_logits: Forget rows first, shape ``(L, B)``.
        num_forget: How many.

    Returns:
        Two scalars, nats, shape ``()``; 0 for a side without rows.
    """
    return (
        mean_or_zero(F.softplus(-gate_logits[:, :num_forget])),
        mean_or_zero(F.softplus(gate_logits[:, num_forget:])),
    )


def edit_weight(step: int, warmup_steps: int) -> float:
    """Return omega(t) = min(t / warmup, 1): the weight of everything but the gate loss at 1-based ``step``."""
    return 1.0 if warmup_steps <= 0 else min(step / warmup_steps, 1.0)
