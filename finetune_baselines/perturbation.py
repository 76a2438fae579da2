"""An inner perturbation of the weights: the gradient taken a small step uphill (sharpness-aware minimisation)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from eval.errors import ConfigError

__all__ = ["Perturbation", "perturbed", "uphill"]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    r"""What an `Objective` declares in its attribute ``perturbation`` (arXiv:2502.05374, equation 5).

    The gradient of ``side`` is taken at theta + rho g / ||g||, where g is its own gradient at theta over the whole
    step and ||g|| the norm over all trained parameters; the other side's gradient is taken at theta.

    Raises:
        ConfigError: If ``rho`` is negative.
    """

    rho: float
    """Length of the step, in parameter space; 0: no perturbation."""
    side: Literal["forget", "retain", "both"] = "forget"
    """Whose terms see the perturbed weights."""

    def __post_init__(self) -> None:
        if not self.rho >= 0:
            raise ConfigError(f"rho is {self.rho}; it must be 0 or above.")


def uphill(gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Return ``rho g / ||g||`` with the norm over all tensors; zeros where the gradient is zero."""
    norm = torch.stack([g.float().norm() for g in gradients]).norm()
    scale = rho / norm if float(norm) > 0 else torch.zeros_like(norm)
    return [g * scale.to(g) for g in gradients]


@contextmanager
def perturbed(parameters: Sequence[nn.Parameter], offsets: Sequence[Tensor]) -> Iterator[None]:
    """Add ``offsets`` inside the block; afterwards the parameters are bit for bit what they were."""
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, offset in zip(parameters, offsets, strict=True):
                parameter.add_(offset)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)
