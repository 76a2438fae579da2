"""PDU: flat logits on forget answers, under a bound on the retain loss held by a dual variable."""

from __future__ import annotations

from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["dual_ascent", "flatness_loss"]


def flatness_loss(logits: Tensor) -> Tensor:
    r"""Logit-margin flattening, the forget loss of primal-dual unlearning (arXiv:2506.05314).

    L = (1 / N) * sum_t (max_v z_t(v) - mean_v z_t(v))^2

    Args:
        logits: At the positions that predict answer tokens, shape ``(N, V)``.

    Returns:
        Scalar loss, shape ``()``, >= 0, 0 iff all logits of each position are equal; blind to a constant added to
        them; exactly 0 where there is no position.
    """
    logits = logits.float()
    return mean_or_zero((logits.amax(-1) - logits.mean(-1)).square())


def dual_ascent(dual: float, retain_loss: float, *, bound: float, rate: float) -> float:
    """Return the next dual variable, ``max(0, dual + rate * (retain_loss - bound))``: it rises iff the bound is broken.

    Args:
        dual: Lambda, >= 0.
        retain_loss: Of the last step, nats a token.
        bound: Epsilon, what the retain loss may be.
        rate: Eta, > 0.
    """
    return max(0.0, dual + rate * (retain_loss - bound))
