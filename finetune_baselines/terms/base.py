"""What a loss may look at in a training step, and how a loss is declared so that a recipe can name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from eval.errors import ConfigError

__all__ = ["Answers", "ForgetLimit", "Hidden", "NoOptions", "Reference", "Term", "require_above_zero"]

Reference = Literal["none", "logps", "logits"]
"""What a term must know about the start model: nothing, its gold-token log-probs (computed once), its logits (live)."""


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Hidden states of one layer for the rows of one kind, prompts included."""

    trained: Tensor
    """Of the model in training, shape ``(B, T, D)``."""
    mask: Tensor
    """Real tokens, bool, shape ``(B, T)``."""
    start: Tensor | None = None
    """Of the start model, no gradient, shape ``(B, T, D)``; only where the term asks for it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that a loss may look at in the rows of one kind (gold answers, refusals, ..., retain rows) of a batch.

    Derived values are computed once.
    """

    logits: Tensor
    """At the positions that predict answer tokens, shape ``(N, V)``."""
    targets: Tensor
    """Answer token ids, shape ``(N,)``."""
    rows: Tensor
    """Row of each position, counted from 0 within this kind, shape ``(N,)``."""
    num_rows: int
    reference_token_logps: Tensor | None = None
    """Answer-token log-probs of the start model, nats, shape ``(N,)``."""
    reference_logits: Tensor | None = None
    """Of the start model, shape ``(N, V)``."""
    hidden: Hidden | None = None
    tokenize: Callable[[str], list[int]] | None = None
    """The tokenizer, without special tokens: for a target text that no row holds."""
    seed: int = 0
    """Of the run: for what is drawn once and then fixed."""

    @cached_property
    def token_logps(self) -> Tensor:
        """Log-probability of each answer token, fp32, nats, shape ``(N,)``."""
        return torch.log_softmax(self.logits.float(), dim=-1).gather(1, self.targets[:, None])[:, 0]

    @cached_property
    def sequence_logps(self) -> Tensor:
        """Summed log-probability of each answer, nats, shape ``(B,)``."""
        return self.summed(self.token_logps)

    @cached_property
    def reference_sequence_logps(self) -> Tensor:
        """Summed log-probability of each answer under the start model, nats, shape ``(B,)``."""
        assert self.reference_token_logps is not None
        return self.summed(self.reference_token_logps)

    @cached_property
    def lengths(self) -> Tensor:
        """Answer tokens of each row, shape ``(B,)``."""
        return torch.bincount(self.rows, minlength=self.num_rows)

    def summed(self, values: Tensor) -> Tensor:
        """Sum values at answer positions, shape ``(N,)``, over each row: shape ``(B,)``."""
        return torch.zeros(self.num_rows, device=values.device).index_add(0, self.rows, values.float())

    def averaged(self, values: Tensor) -> Tensor:
        """Mean of values at answer positions, shape ``(N,)``, over each row: shape ``(B,)``."""
        return self.summed(values) / self.lengths.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A loss with nothing to set."""


@dataclass(frozen=True, kw_only=True)
class ForgetLimit:
    """How far a forget loss without a lower bound may go.

    Raises:
        ConfigError: If a value is out of range.
    """

    max_forget_loss: float | None = None
    """What is enough, nats a token (of negative log-likelihood, or of divergence from the start); null: no limit."""
    on_max_forget_loss: str = "clamp"
    """``clamp``: leave tokens beyond it alone; ``stop``: end the run once a step's mean is beyond it."""

    def __post_init__(self) -> None:
        if self.max_forget_loss is not None and not self.max_forget_loss > 0:
            raise ConfigError(
                f"max_forget_loss is {self.max_forget_loss}; it must be above 0, or null for no limit."
            )
        if self.on_max_forget_loss not in ("clamp", "stop"):
            raise ConfigError(f"Unknown on_max_forget_loss {self.on_max_forget_loss!r}; use clamp or stop.")

    @property
    def clamp(self) -> float | None:
        """The limit where it is a clamp."""
        return self.max_forget_loss if self.on_max_forget_loss == "clamp" else None


@dataclass(frozen=True, kw_only=True)
class Term:
    """A loss as a recipe names it."""

    compute: Callable[..., Tensor]
    """``compute(answers, options)``, or ``compute(answers, options, other)`` for a loss on two answers to the same
    questions; returns shape ``()``."""
    mean_over: Literal["rows", "tokens"]
    reference: Reference = "none"
    options: type[Any] = NoOptions
    """A frozen dataclass: every setting of the loss, documented, with its default and its check."""
    layer: Callable[[Any, int], int] | None = None
    """For a loss on hidden states: ``layer(options, num_layers)``, the index of the decoder block it reads."""


def require_above_zero(options: Any, *names: str) -> None:
    """Refuse settings that are not above 0.

    Raises:
        ConfigError: Names the first one that is not.
    """
    for name in names:
        if not getattr(options, name) > 0:
            raise ConfigError(f"{name} is {getattr(options, name)}; it must be above 0.")
