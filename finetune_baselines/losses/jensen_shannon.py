"""JensUn: bounded Jensen-Shannon divergences, to a refusal's tokens and to the start model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["js_loss", "js_to_token_loss"]


def js_loss(logits: Tensor, reference_logits: Tensor) -> Tensor:
    r"""Mean Jensen-Shannon divergence to the start model: JensUn's retain term (arXiv:2509.02820).

    L = (1 / N) * sum_t [KL(P_th || M) + KL(P_ref || M)] / 2,  M = (P_th + P_ref) / 2

    Args:
        logits: Of the trained model at the positions that predict answer tokens, shape ``(N, V)``.
        reference_logits: Of the start model at the same positions, no gradient, shape ``(N, V)``.

    Returns:
        Scalar loss in nats, shape ``()``, in [0, ln 2]; exactly 0 where there is no position.
    """
    trained = torch.log_softmax(logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    middle = torch.logaddexp(trained, reference) - math.log(2)
    both = trained.exp() * (trained - middle) + reference.exp() * (reference - middle)
    return mean_or_zero(both.sum(-1) / 2)


def js_to_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    r"""Mean Jensen-Shannon divergence to one token a position: JensUn's forget term (arXiv:2509.02820).

    With p the probability of the wanted token,
    JSD(P, e_v) = ln 2 - [(1 + p) ln(1 + p) - p ln p] / 2, gradient on z_v: -p (1 - p) ln((1 + p) / p) / 2.

    Args:
        logits: At the positions that predict answer tokens, shape ``(N, V)``.
        tokens: The wanted token of each position, shape ``(N,)``.

    Returns:
        Scalar loss in nats, shape ``()``, in [0, ln 2]; exactly 0 where there is no position.
    """
    logps = torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0]
    probabilities = logps.exp()
    inner = (1 + probabilities) * torch.log1p(probabilities) - probabilities * logps
    return mean_or_zero(math.log(2) - inner / 2)
