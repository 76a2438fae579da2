"""JensUn: bounded Jensen-Shannon divergences, to a refusal's tokens and to the start model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["js_loss", "js_to_token_loss", "js_to_tokens_loss"]


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


def js_to_tokens_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    r"""What JensUn's published code computes: a "divergence" to a target that is 1 on each of ``K`` tokens.

    With p_v the probability of a wanted token v and the target's mass K instead of 1, the two halves of
    [KL(P || M) + KL(Q || M)] / 2, M = (P + Q) / 2, add up to
    ``[(1 + K) ln 2 + sum_v (p_v ln p_v - (1 + p_v) ln(1 + p_v))] / 2``: for K = 1 the divergence to one token.

    Args:
        logits: Shape ``(N, V)``.
        tokens: The wanted tokens, each once, shape ``(K,)``.

    Returns:
        Mean over positions, nats, shape ``()``; exactly 0 where there is no position.
    """
    logps = torch.log_softmax(logits.float(), dim=-1)[:, tokens]
    probabilities = logps.exp()
    inner = probabilities * logps - (1 + probabilities) * torch.log1p(probabilities)
    return mean_or_zero(((1 + len(tokens)) * math.log(2) + inner.sum(-1)) / 2)
