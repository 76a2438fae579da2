"""Inverted hinge: hand the gold token's probability to its runner-up, with a bounded gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["inverted_hinge_loss"]


def inverted_hinge_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Inverted hinge loss of LoKU (arXiv:2408.06621, eq. 4).

    L = (1 / N) * sum_t max(0, 1 + p_t(y_t) - max_{v != y_t} p_t(v))

    Probabilities, not logits; the hinge never bites, since no probability is above 1. Gradient on the logits: gold
    ``p_y (1 + p_v* - p_y)``, runner-up ``p_v* (p_v* - p_y - 1)``, others ``p_v (p_v* - p_y)``.

    Args:
        logits: At the positions that predict answer tokens, shape ``(N, V)``.
        targets: The answer tokens, shape ``(N,)``.

    Returns:
        Scalar loss, shape ``()``, in [0, 2]; exactly 0 where there is no token.
    """
    probabilities = torch.softmax(logits.float(), dim=-1)
    gold = probabilities.gather(1, targets[:, None])[:, 0]
    runner_up = probabilities.scatter(1, targets[:, None], -1.0).amax(-1)
    return mean_or_zero((1 + gold - runner_up).clamp(min=0))
