"""When to edit: one logit from a hidden state."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Gate", "GateInput", "GateKind", "LinearGate", "MLPGate", "new_gate", "pooled_logits"]

GateKind = Literal["linear", "mlp"]
"""Kinds of gate."""
GateInput = Literal["rms", "raw"]
"""What a gate reads: the RMS-normed hidden state, or (imported checkpoints) the hidden state as it is."""

MLP_WIDTHS = (256, 64)
"""Hidden layers of the paper's gate of three linear maps."""


class Gate(nn.Module):
    """A function from hidden states to one logit each, in fp32.

    The norm makes one learning rate fit every family (hidden states differ by orders of magnitude); fp32
    logits keep a wrongly opened gate trainable, where a bf16 sigmoid would round to 1 and stop its gradient.

    Args:
        reads: ``rms`` or ``raw``.
    """

    def __init__(self, reads: GateInput = "rms") -> None:
        super().__init__()
        self.reads = reads

    def read(self, hidden: Tensor) -> Tensor:
        """Return what `score` takes for hidden states ``(..., D)``: fp32, same shape."""
        hidden = hidden.float()
        return F.rms_norm(hidden, hidden.shape[-1:]) if self.reads == "rms" else hidden

    def score(self, seen: Tensor) -> Tensor:
        """Return the logits ``(..., 1)`` of what `read` returned."""
        raise NotImplementedError

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the gate logit of each hidden state ``(..., D)``, fp32, shape ``(..., 1)``."""
        return self.score(self.read(hidden))


class LinearGate(Gate):
    """``g(x) = w x + c``; starts at logit 0 everywhere.

    Args:
        embed_dim: Width ``D`` of the hidden states.
        reads: ``rms`` or ``raw``.
    """

    def __init__(self, embed_dim: int, reads: GateInput = "rms") -> None:
        super().__init__(reads)
        self.weight = nn.Parameter(torch.zeros(1, embed_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def score(self, seen: Tensor) -> Tensor:
        """Return the logits ``(..., 1)`` of what `read` returned."""
        return F.linear(seen, self.weight, self.bias)


class MLPGate(Gate):
    """Three linear maps (``D`` to 256 to 64 to 1) with ReLU between them; starts near logit 0.

    Args:
        embed_dim: Width ``D`` of the hidden states.
        reads: ``rms`` or ``raw``.
        generator: Of the initial weights; the global generator is never used.
    """

    def __init__(
        self, embed_dim: int, reads: GateInput = "rms", generator: torch.Generator | None = None
    ) -> None:
        super().__init__(reads)
        widths = (embed_dim, *MLP_WIDTHS, 1)
        self.weights = nn.ParameterList(
            torch.randn(out, width, generator=generator) * (2 / width) ** 0.5  # He: keeps ReLU outputs' scale
            for width, out in itertools.pairwise(widths[:-1])
        )
        # small, but not 0: every tensor has a gradient at the first step
        self.weights.append(torch.randn(1, widths[-2], generator=generator) * 0.1 / widths[-2] ** 0.5)
        self.biases = nn.ParameterList(torch.zeros(out) for out in widths[1:])

    def score(self, seen: Tensor) -> Tensor:
        """Return the logits ``(..., 1)`` of what `read` returned."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            seen = F.linear(F.relu(seen) if i else seen, weight, bias)
        return seen


def new_gate(
    kind: GateKind, embed_dim: int, reads: GateInput = "rms", generator: torch.Generator | None = None
) -> Gate:
    """Return a fresh gate of a kind, at or near logit 0 everywhere: it opens half way."""
    return LinearGate(embed_dim, reads) if kind == "linear" else MLPGate(embed_dim, reads, generator)


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
