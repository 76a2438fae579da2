"""When to edit: one logit from a hidden state."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "DETECTORS",
    "WINDOW",
    "FollowingGate",
    "Gate",
    "GateInput",
    "GateKind",
    "LinearGate",
    "MLPGate",
    "PhraseGate",
    "new_gate",
    "pooled_logits",
]

GateKind = Literal["linear", "mlp", "phrase"]
"""Kinds of gate."""
GateInput = Literal["rms", "raw"]
"""What a gate reads: the RMS-normed hidden state, or (imported checkpoints) the hidden state as it is."""

MLP_WIDTHS = (256, 64)
"""Hidden layers of the paper's gate of three linear maps."""

DETECTORS = 64
"""Detectors of the phrase gate."""
PHRASE_HIDDEN = 16
"""Units that combine them."""
WINDOW = 3
"""Tokens that each detector of a phrase gate looks at."""


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


class PhraseGate(Gate):
    """Reads the whole prompt and decides once: detectors of short phrases, each at its best place, then a small MLP.

    Who is asked about stands in the prompt's own tokens; at its end, a small model keeps it mixed with the wording.
    A detector is a linear map of three neighbouring hidden states; its strength is the largest over the prompt, so
    neither the place of a name nor what stands around it matters.

    Args:
        embed_dim: Width ``D`` of the hidden states.
        reads: ``rms`` or ``raw``.
        generator: Of the initial weights; the global generator is never used.
    """

    def __init__(
        self, embed_dim: int, reads: GateInput = "rms", generator: torch.Generator | None = None
    ) -> None:
        super().__init__(reads)
        width = WINDOW * embed_dim
        self.detectors = nn.Parameter(torch.randn(DETECTORS, width, generator=generator) / width**0.5)
        self.levels = nn.Parameter(torch.zeros(DETECTORS))
        self.combine = nn.Parameter(
            torch.randn(PHRASE_HIDDEN, DETECTORS, generator=generator) * (2 / DETECTORS) ** 0.5
        )
        self.combine_bias = nn.Parameter(torch.zeros(PHRASE_HIDDEN))
        self.out = nn.Parameter(torch.randn(1, PHRASE_HIDDEN, generator=generator) * 0.1 / PHRASE_HIDDEN**0.5)
        self.out_bias = nn.Parameter(torch.zeros(1))

    def scan(self, hidden: Tensor, mask: Tensor, state: Tensor | None = None) -> Tensor:
        """Read (further) prompt tokens.

        Args:
            hidden: Hidden states, shape ``(B, T, D)``.
            mask: Which of them belong to the prompt, bool, shape ``(B, T)``.
            state: What an earlier call returned for the prompt's beginning; ``None`` at its start.

        Returns:
            The strengths so far and the last tokens, for `decide` and the next call, shape ``(B, S)``.
        """
        seen = self.read(hidden) * mask[..., None]
        num_rows, _, width = seen.shape
        before = seen.new_zeros(num_rows, WINDOW - 1, width)
        if state is not None:
            before = state[:, DETECTORS:].view_as(before)
        padded = torch.cat([before, seen], dim=1)
        parts = self.detectors.view(DETECTORS, WINDOW, width)
        strengths = sum(
            F.linear(padded[:, WINDOW - 1 - k : padded.shape[1] - k], parts[:, k]) for k in range(WINDOW)
        )
        best = (strengths + self.levels).masked_fill(~mask[..., None], -torch.inf).amax(1)
        if state is not None:
            best = torch.maximum(best, state[:, :DETECTORS])
        return torch.cat([best, padded[:, 1 - WINDOW :].flatten(1)], dim=1)

    def decide(self, state: Tensor) -> Tensor:
        """Return the gate logit of each row from what `scan` returned, shape ``(B,)``."""
        strengths = F.relu(state[:, :DETECTORS])  # -inf, of a row without prompt tokens, becomes 0
        combined = F.relu(F.linear(strengths, self.combine, self.combine_bias))
        return F.linear(combined, self.out, self.out_bias)[:, 0]


class FollowingGate(Gate):
    """Opens as far as the gate of the first edited block: one decision for all blocks, and no parameters."""


def new_gate(
    kind: GateKind, embed_dim: int, reads: GateInput = "rms", generator: torch.Generator | None = None
) -> Gate:
    """Return a fresh gate of a kind, at or near logit 0 everywhere: it opens half way."""
    match kind:
        case "linear":
            return LinearGate(embed_dim, reads)
        case "mlp":
            return MLPGate(embed_dim, reads, generator)
        case "phrase":
            return PhraseGate(embed_dim, reads, generator)


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
