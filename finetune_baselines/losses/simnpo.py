"""SimNPO: NPO without a reference, normalised by length."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["simnpo_loss"]


def simnpo_loss(
    answer_nlls: Tensor,
    *,
    beta: float = 2.5,
    gamma: float = 0.0,
    margin: Literal["outside", "inside"] = "outside",
) -> Tensor:
    r"""Simple NPO (arXiv:2410.07163, eq. 4).

    outside (as the paper writes it):   L = -(2 / beta) * mean(log sigmoid(beta * nll - gamma))
    inside (its TOFU code):             L = -(2 / beta) * mean(log sigmoid(beta * (nll - gamma)))

    Args:
        answer_nlls: MEAN negative log-probability (nats a token) of each answer, shape ``(B,)``.
        beta: Inverse temperature, > 0.
        gamma: Reward margin; 0 in all published runs.
        margin: Where gamma stands.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no row.
    """
    inner = beta * answer_nlls - gamma if margin == "outside" else beta * (answer_nlls - gamma)
    return -(2 / beta) * mean_or_zero(logsigmoid(inner))
