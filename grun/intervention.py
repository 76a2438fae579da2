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

from grun.gate import GateInput, GateKind, new_gate

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
        gate: Kind of the gate.
        gate_input: What the gate reads.
        generator: Of the initial basis and gate; the global generator is never used.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        rank: int,
        gate: GateKind = "linear",
        gate_input: GateInput = "rms",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(embed_dim=embed_dim, keep_last_dim=True)
        basis = torch.linalg.qr(torch.randn(embed_dim, rank, generator=generator)).Q
        self.basis = nn.Parameter(basis)
        self.weight = nn.Parameter(torch.linalg.qr(basis).Q.T.clone())
        self.bias = nn.Parameter(torch.zeros(rank))
        self.gate = new_gate(gate, embed_dim, gate_input, generator)
        self._known_rotation: tuple[tuple[Any, ...], Tensor] | None = None
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
        logit = self.gate(base)
        return pv.InterventionOutput(output=self.edited(base, logit), latent=logit)

    def edited(self, base: Tensor, logit: Tensor) -> Tensor:
        """Edit hidden states by gates read elsewhere.

        Args:
            base: Hidden states, shape ``(..., D)``, any floating dtype.
            logit: Gate logits, fp32, shape ``(..., 1)``.

        Returns:
            Edited states like ``base``.
        """
        hidden = base.float()
        rotation = self.rotation()
        delta = (F.linear(hidden, self.weight, self.bias) - hidden @ rotation) @ rotation.T
        return (hidden + torch.sigmoid(logit) * delta).to(base.dtype)

    def rotation(self) -> Tensor:
        """Return ``R`` transposed: orthonormal columns, shape ``(D, r)``; computed once while ``basis`` is frozen."""
        if self.basis.requires_grad:
            free: Tensor = torch.linalg.qr(self.basis).Q
            return free
        version = (self.basis._version, self.basis.data_ptr(), self.basis.device)
        known = self._known_rotation
        if known is None or known[0] != version:
            with torch.inference_mode(False), torch.no_grad():
                known = (version, torch.linalg.qr(self.basis).Q)
            self._known_rotation = known
        rotation: Tensor = known[1]
        return rotation

    def tensors(self) -> dict[str, Tensor]:
        """Return what an artifact stores: the trained tensors on the CPU, without pyvene's own buffers."""
        return {name: value.detach().cpu().contiguous() for name, value in self.named_parameters()}
