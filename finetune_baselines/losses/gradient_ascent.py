"""Gradient ascent: push the gold answer's likelihood down, without end."""

from __future__ import annotations

from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["gradient_ascent_loss"]


def gradient_ascent_loss(logps: Tensor, *, max_loss: float | None = None) -> Tensor:
    r"""Gradient ascent on answer tokens (arXiv:2310.10683; the baseline GA of TOFU, arXiv:2401.06121).

    L = (1 / N) * sum_t log p_t, unbounded below;
    with a clamp, L = -(1 / N) * sum_t min(-log p_t, max_loss)

    Args:
        logps: Log-probabilities of the answer tokens of the whole batch, nats, shape ``(N,)``.
        max_loss: Tokens whose negative log-probability (nats) is above it are left alone: their gradient is 0.

    Returns:
        Scalar loss, shape ``()``, <= 0; exactly 0 where there is no token.
    """
    return mean_or_zero(logps if max_loss is None else logps.clamp(min=-max_loss))
