"""From a recipe to an objective: one forward over forget and retain rows, then the recipe's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from eval.models.forward import evaluating
from eval.types import Batch
from finetune_baselines import losses
from finetune_baselines.batches import PairBatch
from finetune_baselines.recipes import Recipe
from finetune_baselines.training import Unit

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["TERMS", "Answers", "RecipeObjective", "Reference", "Term", "needs_reference"]

Reference = Literal["none", "logps", "logits"]
"""What a term must know about the start model: nothing, its gold-token log-probs (computed once), its logits (live)."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that a loss may look at on one side (forget or retain) of a batch; derived values are computed once."""

    logits: Tensor
    """At the positions that predict answer tokens, shape ``(N, V)``."""
    targets: Tensor
    """Answer token ids, shape ``(N,)``."""
    rows: Tensor
    """Row of each position, counted from 0 within this side, shape ``(N,)``."""
    num_rows: int
    reference_token_logps: Tensor | None = None
    """Gold-token log-probs of the start model, nats, shape ``(N,)``."""
    reference_logits: Tensor | None = None
    """Of the start model, shape ``(N, V)``."""

    @cached_property
    def token_logps(self) -> Tensor:
        """Log-probability of each answer token, fp32, nats, shape ``(N,)``."""
        return torch.log_softmax(self.logits.float(), dim=-1).gather(1, self.targets[:, None])[:, 0]

    @cached_property
    def sequence_logps(self) -> Tensor:
        """Summed log-probability of each answer, nats, shape ``(B,)``."""
        return self._summed(self.token_logps)

    @cached_property
    def reference_sequence_logps(self) -> Tensor:
        """Summed log-probability of each answer under the start model, nats, shape ``(B,)``."""
        assert self.reference_token_logps is not None
        return self._summed(self.reference_token_logps)

    def _summed(self, logps: Tensor) -> Tensor:
        return torch.zeros(self.num_rows, device=logps.device).index_add(0, self.rows, logps)


@dataclass(frozen=True, kw_only=True)
class Term:
    """A loss as a recipe names it."""

    compute: Callable[[Answers, Recipe], Tensor]
    mean_over: Literal["rows", "tokens"]
    reference: Reference = "none"


def _ga(answers: Answers, recipe: Recipe) -> Tensor:
    clamp = recipe.max_forget_loss if recipe.on_max_forget_loss == "clamp" else None
    return losses.gradient_ascent_loss(answers.token_logps, max_loss=clamp)


def _ce(answers: Answers, recipe: Recipe) -> Tensor:
    return losses.cross_entropy_loss(answers.token_logps)


def _npo(answers: Answers, recipe: Recipe) -> Tensor:
    return losses.npo_loss(answers.sequence_logps, answers.reference_sequence_logps, beta=recipe.beta)


def _kl(answers: Answers, recipe: Recipe) -> Tensor:
    assert answers.reference_logits is not None
    return losses.kl_loss(answers.logits, answers.reference_logits, direction=recipe.kl_direction)


TERMS: Mapping[str, Term] = MappingProxyType(
    {
        "ce": Term(compute=_ce, mean_over="tokens"),
        "ga": Term(compute=_ga, mean_over="tokens"),
        "kl": Term(compute=_kl, mean_over="tokens", reference="logits"),
        "npo": Term(compute=_npo, mean_over="rows", reference="logps"),
    }
)
"""Every term a recipe may name, on either side."""


def needs_reference(recipe: Recipe) -> frozenset[Reference]:
    """Return what the recipe's terms must know about the start model."""
    return frozenset(TERMS[name].reference for name in (recipe.forget, recipe.retain) if name is not None)


class RecipeObjective:
    """The loss of a recipe, as the trainer calls it.

    Args:
        recipe: What to minimise.
        start: The frozen start model, for terms that need its logits; ``None``: the model in training with its
            edit switched off (an adapter that starts at zero).
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None) -> None:
        self.recipe = recipe
        self.start = start
        self.forget_name = f"forget_{recipe.forget}"
        self.retain_name = f"retain_{recipe.retain}"
        self.units: dict[str, Unit] = {
            self.forget_name: "forget_rows" if TERMS[recipe.forget].mean_over == "rows" else "forget_tokens"
        }
        if recipe.retain is not None:
            self.units[self.retain_name] = (
                "retain_rows" if TERMS[recipe.retain].mean_over == "rows" else "retain_tokens"
            )

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return ``{"forget_<term>": ..., "retain_<term>": ...}``, weighted; see `Objective`."""
        batch = batch.to(lm.device)
        recipe = self.recipe
        frozen = self._frozen_logits(lm, batch)
        logits = lm.answer_logits(batch.both, module=module)
        sides = _split(batch, logits)
        forget = self._value(recipe.forget, sides[0], frozen[0])
        terms = {self.forget_name: recipe.forget_weight * forget}
        if recipe.retain is not None:
            retain = self._value(recipe.retain, sides[1], frozen[1])
            terms[self.retain_name] = recipe.retain_weight * retain
        return terms

    def should_stop(self, terms: Mapping[str, float]) -> str | None:
        """Return a sentence once the mean forget loss of a step is beyond the recipe's limit."""
        recipe = self.recipe
        limit = recipe.max_forget_loss
        if limit is None or recipe.on_max_forget_loss != "stop" or recipe.forget != "ga":
            return None
        reached = -terms[self.forget_name] / recipe.forget_weight if recipe.forget_weight else 0.0
        return (
            f"The forget loss reached {reached:.2f} nats, above max_forget_loss {limit}."
            if reached > limit
            else None
        )

    def _value(self, name: str, answers: Answers, frozen: Tensor | None) -> Tensor:
        if TERMS[name].reference == "logits":
            # A side without rows ran no reference forward: nothing compared with nothing is an exact 0.
            answers = replace(answers, reference_logits=answers.logits.detach() if frozen is None else frozen)
        return TERMS[name].compute(answers, self.recipe)

    def _frozen_logits(self, lm: LanguageModel, batch: PairBatch) -> tuple[Tensor | None, Tensor | None]:
        wanted = (self.recipe.forget, self.recipe.retain)
        parts: tuple[Batch, Batch] = (batch.forget, batch.retain)
        out: list[Tensor | None] = []
        for name, part in zip(wanted, parts, strict=True):
            if name is None or TERMS[name].reference != "logits" or not len(part):
                out.append(None)
                continue
            start = self.start or lm
            off = nullcontext() if self.start is not None else lm.edit_disabled()
            with off, evaluating(start.model):
                out.append(start.answer_logits(part).float())
        return out[0], out[1]


def _split(batch: PairBatch, logits: Tensor) -> tuple[Answers, Answers]:
    """Cut the batch's answer positions into the forget side and the retain side."""
    cut = batch.num_forget_tokens
    targets, rows, reference = batch.both.targets, batch.both.rows, batch.reference_logps
    forget = Answers(
        logits=logits[:cut],
        targets=targets[:cut],
        rows=rows[:cut],
        num_rows=batch.num_forget,
        reference_token_logps=None if reference is None else reference[:cut],
    )
    retain = Answers(
        logits=logits[cut:],
        targets=targets[cut:],
        rows=rows[cut:] - batch.num_forget,
        num_rows=batch.num_retain,
        reference_token_logps=None if reference is None else reference[cut:],
    )
    return forget, retain
