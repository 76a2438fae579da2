"""FLAT: an f-divergence between a template answer and the forget answer, from forget data alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["DIVERGENCES", "flat_loss"]

DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "tv": lambda good, bad: (bad.tanh() - good.tanh()) / 2,
        "kl": lambda good, bad: (bad - 1).exp() - good,
        "js": lambda good, bad: softplus(-good) + softplus(bad) - 2 * math.log(2),
        "pearson": lambda good, bad: -good + bad + bad**2 / 4,
        "jeffrey": lambda good, bad: -good + bad + bad**2 / 4 + bad**3 / 16,
    }
)
"""Name to ``-g*(P_g) + f*(g*(P_f))``; reverse KL, squared Hellinger and Neyman have wrong signs as published."""


def flat_loss(template_probs: Tensor, forget_probs: Tensor, *, divergence: str = "tv") -> Tensor:
    r"""Loss adjustment with only forget data (FLAT, arXiv:2410.11143, eq. 5).

    L = -g*(P_g) + f*(g*(P_f)), with P_g and P_f the batch means of the inputs

    total variation  -tanh(P_g) / 2 + tanh(P_f) / 2
    KL               -P_g + exp(P_f - 1)
    Jensen-Shannon   log(1 + e^-P_g) + log(1 + e^P_f) - 2 log 2
    Pearson          -P_g + P_f + P_f^2 / 4

    Args:
        template_probs: Mean token probability (not log) of each template answer, shape ``(B,)``.
        forget_probs: Mean token probability of each forget answer, shape ``(B',)``.
        divergence: A key of `DIVERGENCES`.

    Returns:
        Scalar loss, shape ``()``; exactly 0 where there is no row.
    """
    if not template_probs.numel() or not forget_probs.numel():
        return torch.cat([template_probs, forget_probs]).sum() * 0.0
    return DIVERGENCES[divergence](template_probs.mean(), forget_probs.mean())
