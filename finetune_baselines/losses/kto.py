"""Kahneman-Tversky Optimization as unlearning: the gold answer is undesirable, refusals set the zero point."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["kto_loss"]


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    anchor_logps: Tensor,
    anchor_reference_logps: Tensor,
    *,
    beta: float = 0.1,
    form: Literal["sigmoid", "logsigmoid"] = "logsigmoid",
    anchor: Literal["unlearning", "original"] = "unlearning",
) -> Tensor:
    r"""KTO on undesirable answers (arXiv:2402.01306) in its unlearning form (baselines of arXiv:2404.05868).

    sigmoid:     L = 1 - (2 / beta) * mean(sigmoid(K - beta * D))
    logsigmoid:  L = 1 - (2 / beta) * mean(log sigmoid(K - beta * D))

    D = policy - reference log-probs of the gold answers; K = the batch mean of the refusals' D, without gradient.
    Original anchor: K is clamped at 0 from below and stands inside the beta.

    Args:
        policy_logps: Summed log-probs (nats) of the answers to forget under the trained model, shape ``(B,)``.
        reference_logps: The same under the frozen start model, no gradient, shape ``(B,)``.
        anchor_logps: Summed log-probs of refusals of the same questions under the trained model, shape ``(B',)``.
        anchor_reference_logps: The same under the start model, no gradient, shape ``(B',)``.
        beta: Inverse temperature, > 0.
        form: See above.
        anchor: See above.

    Returns:
        Scalar loss, shape ``()``: in (1 - 2 / beta, 1) for sigmoid, above 1 for logsigmoid; exactly 0 where there
        is no row.
    """
    zero_point = mean_or_zero(anchor_logps.detach() - anchor_reference_logps)
    if anchor == "original":
        zero_point = beta * zero_point.clamp(min=0)
    values = zero_point - beta * (policy_logps - reference_logps)
    squashed = torch.sigmoid(values) if form == "sigmoid" else logsigmoid(values)
    return mean_or_zero(1 - (2 / beta) * squashed)
