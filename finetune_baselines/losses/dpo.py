"""Direct Preference Optimization as unlearning: the refusal (or another answer) wins, the gold answer loses."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune_baselines.losses.reduction import mean_or_zero

__all__ = ["dpo_loss"]


def dpo_loss(
    winner_logps: Tensor,
    winner_reference_logps: Tensor,
    loser_logps: Tensor,
    loser_reference_logps: Tensor,
    *,
    beta: float = 0.1,
    scaled: bool = True,
) -> Tensor:
    r"""Direct Preference Optimization (arXiv:2305.18290, eq. 7) in the scale of NPO (arXiv:2404.05868, section 2).

    L = -(2 / beta) * mean(log sigmoid(beta * (D_w - D_l))),  D = policy - reference log-probs

    With D_w held at 0 it is NPO. AltPO (arXiv:2409.13474) is this loss with a model-written alternative as winner.

    Args:
        winner_logps: Summed log-probs (nats) of the preferred answers under the trained model, shape ``(B,)``.
        winner_reference_logps: The same under the frozen start model, no gradient, shape ``(B,)``.
        loser_logps: Summed log-probs of the answers to forget under the trained model, shape ``(B,)``.
        loser_reference_logps: The same under the start model, no gradient, shape ``(B,)``.
        beta: Inverse temperature, > 0.
        scaled: Multiply by ``2 / beta`` as all unlearning code does; the original loss does not.

    Returns:
        Scalar loss, shape ``()``, >= 0; exactly 0 where there is no row.
    """
    margin = (winner_logps - winner_reference_logps) - (loser_logps - loser_reference_logps)
    return -(2 / beta if scaled else 1.0) * mean_or_zero(logsigmoid(beta * margin))
