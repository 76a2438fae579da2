"""Cross-entropy on answers: the retain term RT, and the forget term of IDK on refusals."""

from __future__ import annotations

from torch import Tensor

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["cross_entropy_loss"]


def cross_entropy_loss(logps: Tensor) -> Tensor:
    r"""Mean negative log-likelihood of answer tokens ("RT", "NLL", "GD"; TOFU, arXiv:2401.06121, section 4).

    L = -(1 / N) * sum_t log p_t

    Args:
        logps: Log-probabilities of the answer tokens of the whole batch, nats, shape ``(N,)``.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no token.
    """
    return -mean_or_zero(logps)
