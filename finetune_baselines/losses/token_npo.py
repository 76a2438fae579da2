"""NPO token by token: each answer token fades on its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["token_npo_loss", "weighted_token_npo_loss"]


def token_npo_loss(logps: Tensor, reference_logps: Tensor, *, beta: float = 0.5) -> Tensor:
    r"""Token-level NPO (Clausen 2025, University of Oslo; Atyaephyra, arXiv:2503.13690).

    L = -(2 / beta) * (1 / N) * sum_t log sigmoid(beta * (log p_ref,t - log p_t))

    The gradient on ``log p_t`` is ``2 p^b / (p^b + p_ref^b) / N``. It is sequence NPO only where answers have one
    token: a sum of sigmoids is not the sigmoid of a sum.

    Args:
        logps: Log-probs (nats) of the answer tokens of the whole batch under the trained model, shape ``(N,)``.
        reference_logps: The same under the frozen start model, no gradient, shape ``(N,)``.
        beta: Inverse temperature, > 0.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no token.
    """
    return -(2 / beta) * mean_or_zero(logsigmoid(beta * (reference_logps - logps)))


def weighted_token_npo_loss(
    logps: Tensor, reference_logps: Tensor, *, beta: float = 4.0, power: float = 0.0, eps: float = 0.0
) -> Tensor:
    r"""TNPO (power 0) and WTNPO (power above 0) of the G-effect paper (arXiv:2502.19301).

    L = (1 / N) * sum_t sg(w_t) * log p_t,  w = 2 p^(b + power) / (p^b + p_ref^b + eps)

    At power 0 and eps 0 the gradient is `token_npo_loss`'s; the values differ.

    Args:
        logps: As in `token_npo_loss`, shape ``(N,)``.
        reference_logps: As in `token_npo_loss`, shape ``(N,)``.
        beta: Inverse temperature, > 0.
        power: Further exponent of the token's probability, >= 0.
        eps: 1e-5 in the authors' code: the weight dies once both powers are below it.

    Returns:
        Scalar loss, shape ``()``, <= 0; exactly 0 where there is no token.
    """
    own = logps.detach()
    weights = 2 * (power * own).exp() * torch.sigmoid(beta * (own - reference_logps))
    if eps:
        powered, base = (beta * own).exp(), (beta * reference_logps).exp()
        weights = weights * (powered + base) / (powered + base + eps)
    return mean_or_zero(weights * logps)
