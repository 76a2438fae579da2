"""Teacher-forced token scores: computed once for each (example, answer), and every likelihood metric reads them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["TokenScores", "answer_logps", "token_scores"]


_ARRAYS: dict[str, Any] = {
    "logps": np.float32,
    "hits": np.bool_,
    "means": np.float32,
    "variances": np.float32,
}


@dataclass(frozen=True)
class TokenScores:
    """What one forward pass says about one answer of ``n`` tokens (its end-of-sequence token included)."""

    token_ids: npt.NDArray[np.int64]
    """Answer token ids, shape ``(n,)``."""
    logps: npt.NDArray[np.float32]
    """Log-probability of each token given what precedes it, nats, shape ``(n,)``."""
    hits: npt.NDArray[np.bool_]
    """Whether the token is the model's first choice, shape ``(n,)``."""
    means: npt.NDArray[np.float32] | None = None
    """Mean log-probability under the model's own next-token distribution, nats, shape ``(n,)``."""
    variances: npt.NDArray[np.float32] | None = None
    """Variance of the log-probability under that distribution, shape ``(n,)``."""

    def as_json(self) -> dict[str, Any]:
        """Return the values without the token ids: arrays in base 64, so that `from_json` gives every bit back."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        packed = {
            name: b64encode(array.tobytes()).decode() for name, array in arrays.items() if array is not None
        }
        return {"avg_loss": self.avg_loss, **packed}

    @classmethod
    def from_json(cls, token_ids: Sequence[int], values: Mapping[str, Any]) -> TokenScores:
        """Read what `as_json` wrote."""
        arrays = {
            name: np.frombuffer(b64decode(values[name]), kind)
            for name, kind in _ARRAYS.items()
            if name in values
        }
        return cls(np.array(token_ids, np.int64), **arrays)

    @property
    def num_tokens(self) -> int:
        """Answer tokens, the end-of-sequence token included."""
        return len(self.logps)

    @property
    def sum_logp(self) -> float:
        """Log-probability of the whole answer, nats."""
        return float(self.logps.sum(dtype=np.float64))

    @property
    def avg_loss(self) -> float:
        """Mean negative log-probability per token, nats."""
        return -self.sum_logp / self.num_tokens if self.num_tokens else float("nan")

    @property
    def prob(self) -> float:
        """Length-normalised probability ``exp(-avg_loss)``."""
        return exp(-self.avg_loss)


def token_scores(
    logits: Tensor, targets: Tensor, lengths: list[int], *, moments: bool = False
) -> list[TokenScores]:
    """Turn answer logits into one `TokenScores` a row; ``logits`` is overwritten where it is fp32.

    Args:
        logits: Answer logits in row order, shape ``(N, V)``.
        targets: Answer token ids, shape ``(N,)``.
        lengths: Number of answer tokens of each row; they sum to ``N``.
        moments: Also compute mean and variance (Min-K++ needs them).
    """
    logits = logits.float()
    best, argmax = logits.max(dim=-1, keepdim=True)
    gold = logits.gather(1, targets[:, None]) - best
    hits = argmax[:, 0] == targets
    logits.sub_(best)
    means = variances = None
    if moments:
        log_probs = torch.log_softmax(logits, dim=-1)
        probs = log_probs.exp()
        logps = log_probs.gather(1, targets[:, None])[:, 0]
        first = (probs * log_probs).sum(-1)
        second = probs.mul_(log_probs).mul_(log_probs).sum(-1)
        means = first.cpu().numpy()
        variances = (second - first * first).cpu().numpy()
    else:
        logps = (gold - logits.exp_().sum(-1, keepdim=True).log())[:, 0]
    flat_ids, flat_logps, flat_hits = targets.cpu().numpy(), logps.cpu().numpy(), hits.cpu().numpy()
    cuts = np.cumsum([0, *lengths])
    return [
        TokenScores(
            flat_ids[a:b],
            flat_logps[a:b],
            flat_hits[a:b],
            None if means is None else means[a:b],
            None if variances is None else variances[a:b],
        )
        for a, b in pairwise(cuts)
    ]


def answer_logps(logits: Tensor, targets: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Sum each row's answer log-probabilities, with gradients.

    Args:
        logits: Answer logits, shape ``(N, V)``.
        targets: Answer token ids, shape ``(N,)``.
        rows: Row of each position, shape ``(N,)`` (`Batch.rows`).
        num_rows: Number of rows ``B``.

    Returns:
        Summed log-probabilities, nats, fp32, shape ``(B,)``.
    """
    token_logps = torch.log_softmax(logits.float(), dim=-1).gather(1, targets[:, None])[:, 0]
    return torch.zeros(num_rows, device=logits.device).index_add(0, rows, token_logps)
