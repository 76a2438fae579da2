"""CE-U: cross-entropy to the model's own distribution with the gold token taken out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ce_u_loss"]


def ce_u_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Cross-entropy unlearning (arXiv:2503.01224), token by token.

    l_t = CE(sg softmax(z_t with z_y = -inf), P_t) = H(q_t) - log(1 - p_t(y_t)) in value;
    its gradient equals that of -log(1 - p_t(y_t)).

    Args:
        logits: At the positions that predict answer tokens, shape ``(N, V)``.
        targets: The answer tokens, shape ``(N,)``.

    Returns:
        Loss of each token, nats, shape ``(N,)``: the paper leaves the first token of an answer out of the mean.
    """
    logits = logits.float()
    teacher = torch.softmax(logits.detach().scatter(1, targets[:, None], float("-inf")), dim=-1)
    return -(teacher * torch.log_softmax(logits, dim=-1)).sum(-1)
