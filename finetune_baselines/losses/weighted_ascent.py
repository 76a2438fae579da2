"""Gradient ascent whose tokens weigh by their own probability: WGA and SatImp."""

from __future__ import annotations

from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["satimp_loss", "wga_loss"]


def wga_loss(logps: Tensor, *, beta: float = 1.0) -> Tensor:
    r"""Weighted gradient ascent (arXiv:2502.19301, section 5).

    L = (1 / N) * sum_t sg(p_t)^beta * log p_t

    The gradient is that of ``mean(p^beta) / beta``: ascent that stops where a token is already impossible.

    Args:
        logps: Log-probs (nats) of the answer tokens of the whole batch, shape ``(N,)``.
        beta: Exponent; 0 is gradient ascent.

    Returns:
        Scalar loss, shape ``()``, <= 0; exactly 0 where there is no token.
    """
    return mean_or_zero((beta * logps.detach()).exp() * logps)


def satimp_loss(logps: Tensor, *, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    r"""Saturation- and importance-weighted gradient ascent (SatImp, arXiv:2505.11953).

    L = (1 / N) * sum_t sg(p_t^beta1 * (1 - p_t)^beta2) * log p_t

    The weight is 0 at p = 0 and p = 1 and largest at ``beta1 / (beta1 + beta2)``.

    Args:
        logps: Log-probs (nats) of the answer tokens of the whole batch, shape ``(N,)``.
        beta1: Exponent of saturation, >= 0.
        beta2: Exponent of importance, >= 0.

    Returns:
        Scalar loss, shape ``()``, <= 0; exactly 0 where there is no token.
    """
    probabilities = logps.detach().exp()
    weights = probabilities**beta1 * (1 - probabilities).clamp(min=0) ** beta2
    return mean_or_zero(weights * logps)
