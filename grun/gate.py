"""When to edit: one logit from a hidden state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LinearGate", "pooled_logits"]


class LinearGate(nn.Module):
    """Linear gate on the RMS-normed hidden state, in fp32.

    The norm makes one learning rate fit every family (hidden states differ by orders of magnitude); fp32
    logits keep a wrongly opened gate trainable, where a bf16 sigmoid would round to 1 and stop its gradient.

    Args:
        embed_dim: Width ``D`` of the hidden states.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, embed_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the gate logit of each hidden state ``(..., D)``, fp32, shape ``(..., 1)``."""
        hidden = hidden.float()
        return F.linear(F.rms_norm(hidden, hidden.shape[-1:]), self.weight, self.bias)


def pooled_logits(logits: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Combine the gate logits of each row's edited tokens as if any of them could open the gate.

    log sum exp: with one token a row it is that token's logit; with more, at least their maximum.

    Args:
        logits: Shape ``(M,)``.
        rows: Row of each, shape ``(M,)``.
        num_rows: ``B``.

    Returns:
        Shape ``(B,)``; ``-inf`` for a row without edited tokens.
    """
    peak = logits.new_full((num_rows,), -torch.inf).scatter_reduce(0, rows, logits.detach(), "amax")
    total = logits.new_zeros(num_rows).index_add(0, rows, (logits - peak[rows]).exp())
    return peak + total.log()
