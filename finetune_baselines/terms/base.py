"""What a loss may look at in a training step, and how a loss is declared so that a recipe can name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from eval.errors import ConfigError

__all__ = [
    "Answers",
    "Everywhere",
    "ForgetLimit",
    "Hidden",
    "NoOptions",
    "Reference",
    "Term",
    "require_above_zero",
    "require_at_least_zero",
    "require_one_of",
]

Reference = Literal["none", "logps", "logits", "hidden"]
"""What a term must know about the start model: nothing, its answer-token log-probs (computed once), its logits or
its hidden states (live)."""


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Hidden states of one layer for the rows of one kind, prompts included."""

    trained: Tensor
    """Of the model in training, shape ``(B, T, D)``."""
    mask: Tensor
    """Real tokens, bool, shape ``(B, T)``."""
    predicting: Tensor
    """Those that predict an answer token, bool, shape ``(B, T)``."""
    start: Tensor | None = None
    """Of the start model, no gradient, shape ``(B, T, D)``; only where the term asks for it."""


@dataclass(frozen=True, kw_only=True)
class Everywhere:
    """All positions of the rows of one kind, prompts and padding included: what published codes look at where they
    mask nothing. Rows are padded to the longest of their kind."""

    logits: Tensor
    """Shape ``(B, T, V)``."""
    predicting: Tensor
    """Positions that predict an answer token, bool, shape ``(B, T)``."""
    answer: Tensor
    """Positions that are an answer token, bool, shape ``(B, T)``."""
    reference_logits: Tensor | None = None
    """Of the start model, shape ``(B, T, V)``; only where a term asks for it."""


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
    num_positions: int = 0
    """Columns of the padded rows but the first: what published code averages over where it masks nothing."""
    reference_token_logps: Tensor | None = None
    """Answer-token log-probs of the start model, nats, shape ``(N,)``."""
    reference_logits: Tensor | None = None
    """Of the start model, shape ``(N, V)``."""
    hidden: Hidden | None = None
    everywhere: Everywhere | None = None
    """Only where a term asks for it (`Term.everywhere`)."""
    tokenize: Callable[[str], list[int]] | None = None
    """Tokens of a text as an answer begins, without special tokens: for a target that no row holds."""
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

    @cached_property
    def places(self) -> Tensor:
        """Number of each position within its row's answer, from 0, shape ``(N,)``."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.rows), device=self.rows.device) - starts[self.rows]

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
    on_max_forget_loss: Literal["clamp", "stop"] = "clamp"
    """``clamp``: leave tokens beyond it alone; ``stop``: end the run once a step's mean is beyond it."""

    def __post_init__(self) -> None:
        if self.max_forget_loss is not None and not self.max_forget_loss > 0:
            raise ConfigError(
                f"max_forget_loss is {self.max_forget_loss}; it must be above 0, or null for no limit."
            )
        require_one_of(self, on_max_forget_loss=("clamp", "stop"))

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
    """With padding among the positions, of which every micro-batch has its own number, it is ``rows`` all the same."""
    everywhere: Callable[[Any], Literal["padded", "labelled"] | None] = lambda options: None
    """Whether these options make it look beyond the positions that predict answers: ``padded`` if it averages over
    prompts and padding, ``labelled`` if over as many positions as there are answer tokens."""
    reference: Reference = "none"
    options: type[Any] = NoOptions
    """A frozen dataclass: every setting of the loss, documented, with its default and its check."""
    layer: Callable[[Any, int], int] | None = None
    """For a loss on hidden states: ``layer(options, num_blocks)``, the index of the decoder block it reads."""
    trains: Callable[[Any, int], tuple[range, str] | None] | None = None
    """For a loss that trains a part of the model alone: ``trains(options, num_blocks)``, the decoder blocks and the
    names of the modules in them, joined by commas; ``None`` from it: everything trains."""

    def unit(self, options: Any) -> Literal["rows", "tokens"]:
        """Return what it is a mean over with these options."""
        return "rows" if self.everywhere(options) == "padded" else self.mean_over


def require_at_least_zero(options: Any, *names: str) -> None:
    """Refuse settings below 0.

    Raises:
        ConfigError: Names the first one that is.
    """
    for name in names:
        if not getattr(options, name) >= 0:
            raise ConfigError(f"{name} is {getattr(options, name)}; it must be 0 or above.")


def require_one_of(options: Any, **allowed: tuple[str, ...]) -> None:
    """Refuse settings that are none of the words allowed for them.

    Raises:
        ConfigError: Names the first one that is not, and what is allowed.
    """
    for name, words in allowed.items():
        value = getattr(options, name)
        if value not in words:
            raise ConfigError(f"Unknown {name} {value!r}; use {', '.join(words[:-1])} or {words[-1]}.")


def require_above_zero(options: Any, *names: str) -> None:
    """Refuse settings that are not above 0.

    Raises:
        ConfigError: Names the first one that is not.
    """
    for name in names:
        if not getattr(options, name) > 0:
            raise ConfigError(f"{name} is {getattr(options, name)}; it must be above 0.")
