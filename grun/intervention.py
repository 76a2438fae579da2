"""The edit itself, once: a pyvene intervention that training, analysis and serving all call."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

with contextlib.redirect_stdout(io.StringIO()):  # pyvene prints a notice when it is imported
    import pyvene as pv

from grun.gate import LinearGate

__all__ = ["GatedLoReFT", "pv"]


# Sourceless first: in the other order pyvene believes that a source is needed and never applies the edit.
class GatedLoReFT(
    pv.SourcelessIntervention,  # type: ignore[misc]
    pv.TrainableIntervention,  # type: ignore[misc]
    pv.DistributedRepresentationIntervention,  # type: ignore[misc]
):
    r"""Gated low-rank edit of a hidden state (GRUN, arXiv:2502.17823).

    GRUN(h) = h + sigmoid(g(h)) * R^T (W h + b - R h)

    ``R`` (``r x D``, orthonormal rows) is the Q of ``basis``' QR decomposition, so it stays orthonormal under
    any optimizer, weight decay included. ``W`` starts as ``R`` and ``b`` as 0: the edit starts as the
    identity. Everything is computed in fp32.

    Args:
        embed_dim: Width ``D`` of the hidden states.
        rank: Columns ``r``.
        generator: Of the initial basis; the global generator is never used.
    """

    def __init__(self, *, embed_dim: int, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__(embed_dim=embed_dim, keep_last_dim=True)
        basis = torch.linalg.qr(torch.randn(embed_dim, rank, generator=generator)).Q
        self.basis = nn.Parameter(basis)
        self.weight = nn.Parameter(torch.linalg.qr(basis).Q.T.clone())
        self.bias = nn.Parameter(torch.zeros(rank))
        self.gate = LinearGate(embed_dim)
        if not self.is_source_constant:
            raise RuntimeError("pyvene would silently skip this intervention: is_source_constant is False.")

    def forward(self, base: Tensor, source: Any = None, subspaces: Any = None) -> Any:
        """Edit hidden states.

        Args:
            base: Hidden states, shape ``(..., D)``, any floating dtype.
            source: Unused; pyvene passes it.
            subspaces: Unused; pyvene passes it.

        Returns:
            ``output``: edited states like ``base``; ``latent``: gate logits, fp32, shape ``(..., 1)``.
        """
        hidden = base.float()
        rotation = torch.linalg.qr(self.basis).Q  # (D, r)
        logit = self.gate(hidden)
        delta = (F.linear(hidden, self.weight, self.bias) - hidden @ rotation) @ rotation.T
        edited = hidden + torch.sigmoid(logit) * delta
        return pv.InterventionOutput(output=edited.to(base.dtype), latent=logit)

    def tensors(self) -> dict[str, Tensor]:
        """Return what an artifact stores: the trained tensors on the CPU, without pyvene's own buffers."""
        return {name: value.detach().cpu().contiguous() for name, value in self.named_parameters()}
