"""Negative Preference Optimization: gradient ascent that fades as the answer becomes unlikely."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["npo_loss"]


def npo_loss(policy_logps: Tensor, reference_logps: Tensor, *, beta: float = 0.1) -> Tensor:
    r"""Negative Preference Optimization (arXiv:2404.05868, eq. 3).

    L = -(2 / beta) * mean(log sigmoid(-beta * (policy_logps - reference_logps)))

    The log-probabilities are SUMS over an answer's tokens: with means, beta would have to be tuned anew.

    Args:
        policy_logps: Summed answer log-probs (nats) under the trained model. Shape ``(B,)``.
        reference_logps: The same answers under the frozen start model, no gradient. Shape ``(B,)``.
        beta: Inverse temperature, > 0. As beta -> 0 the gradient tends to gradient ascent's.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no row.
    """
    return -(2 / beta) * mean_or_zero(logsigmoid(-beta * (policy_logps - reference_logps)))
