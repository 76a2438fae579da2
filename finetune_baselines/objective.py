"""From a recipe to an objective: one forward over all rows of a batch, then the recipe's terms."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from eval.models.blocks import decoder_blocks
from eval.models.forward import evaluating
from eval.types import Batch, Message
from finetune_baselines.batches import PairBatch, every_position, take_rows
from finetune_baselines.blocks import captured
from finetune_baselines.perturbation import Perturbation
from finetune_baselines.recipes import Recipe, TermUse
from finetune_baselines.terms import TERMS, Answers, Everywhere, ForgetLimit, Hidden, Reference
from finetune_baselines.training import Objective, Unit

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["LIVE", "OBJECTIVES", "RecipeObjective", "needs_reference", "new_objective"]

OBJECTIVES: Mapping[str, str] = MappingProxyType(
    {
        "sum": "finetune_baselines.objective:RecipeObjective",
        "rows": "finetune_baselines.row_objective:RowObjective",
        "concat": "finetune_baselines.row_objective:ConcatObjective",
        "primal-dual": "finetune_baselines.primal_dual:PrimalDualObjective",
    }
)
"""How a recipe's terms become a gradient, by name."""


LIVE: frozenset[Reference] = frozenset({"logits", "hidden"})
"""What must be asked of the start model at every step."""


def new_objective(recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> Objective:
    """Build the objective that a recipe names; the arguments are those of `RecipeObjective`."""
    module, _, attribute = OBJECTIVES[recipe.objective].partition(":")
    build: Callable[..., Objective] = getattr(importlib.import_module(module), attribute)
    return build(recipe, start=start, seed=seed)


def needs_reference(recipe: Recipe) -> frozenset[Reference]:
    """Return what the recipe's active terms must know about the start model."""
    return frozenset(TERMS[use.loss].reference for use in recipe.active)


class RecipeObjective:
    """The weighted sum of a recipe's terms, as the trainer calls it.

    Args:
        recipe: What to minimise.
        start: The frozen start model, for terms that need its logits; ``None``: the model in training with its
            edit switched off (an adapter that starts at zero).
        seed: Of the run: for what a term draws once and then keeps.
    """

    def __init__(self, recipe: Recipe, *, start: LanguageModel | None = None, seed: int = 0) -> None:
        self.recipe = recipe
        self.start = start
        self.seed = seed
        self.perturbation = recipe.get(Perturbation) if Perturbation in recipe.extras else None
        self._options = {use.label: recipe.get(TERMS[use.loss].options) for use in recipe.active}
        self.units: dict[str, Unit] = {
            use.label: f"{use.on}_{TERMS[use.loss].unit(self._options[use.label])}" for use in recipe.active
        }
        self._sees_all = any(TERMS[use.loss].everywhere(self._options[use.label]) for use in recipe.active)

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the active terms by label, weighted; see `Objective`."""
        batch = batch.to(lm.device)
        return self.terms(self.recipe.active, self.answers(lm, batch, module))

    def terms(self, uses: tuple[TermUse, ...], answers: Mapping[str, Answers]) -> dict[str, Tensor]:
        """Return the weighted values of some of the recipe's terms."""
        return {use.label: use.weight * self._value(use, answers) for use in uses}

    def answers(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Answers]:
        """Run the batch once and return what the losses may look at, kind by kind."""
        layer = self._layer(lm)
        frozen = self._start_model(lm, batch, layer)
        with captured(lm.model, layer) as states:
            logits, whole = self._logits(lm, batch.both, module)
        out: dict[str, Answers] = {}
        reference, lengths = batch.reference_logps, batch.lengths
        nothing = {kind: slice(0, 0) for kind in self.recipe.answer_kinds}
        for kind, rows in (nothing | batch.sections).items():
            tokens = slice(int(lengths[: rows.start].sum()), int(lengths[: rows.stop].sum()))
            start_logits, start_whole, start_hidden = frozen.get(kind, (None, None, None))
            out[kind] = Answers(
                logits=logits[tokens],
                targets=batch.both.targets[tokens],
                rows=batch.both.rows[tokens] - rows.start,
                num_rows=rows.stop - rows.start,
                num_positions=batch.both.input_ids.shape[1] - 1,
                reference_token_logps=_known(reference, tokens, logits),
                # Rows that are not there had no forward: nothing compared with nothing is an exact 0.
                reference_logits=logits[tokens].detach() if start_logits is None else start_logits,
                hidden=_hidden(states[0], batch.both, rows, start_hidden) if states else None,
                everywhere=None if whole is None else _everywhere(whole, batch.both, rows, start_whole),
                tokenize=partial(_answer_tokens, lm, batch.both.messages[0]),
                seed=self.seed,
            )
        return out

    def should_stop(self, terms: Mapping[str, float]) -> str | None:
        """Return a sentence once the mean forget loss of a step is beyond the recipe's limit."""
        for use in self.recipe.active:
            limit = self._options[use.label]
            if not isinstance(limit, ForgetLimit) or limit.on_max_forget_loss != "stop":
                continue
            reached = -terms.get(use.label, 0.0) / use.weight
            if limit.max_forget_loss is not None and reached > limit.max_forget_loss:
                return (
                    f"The forget loss ({use.label}) reached {reached:.2f} nats, above max_forget_loss "
                    f"{limit.max_forget_loss}."
                )
        return None

    def _value(self, use: TermUse, answers: Mapping[str, Answers]) -> Tensor:
        others = () if use.other is None else (answers[use.other],)
        return TERMS[use.loss].compute(answers[use.on], self._options[use.label], *others)

    def _layer(self, lm: LanguageModel) -> int | None:
        """The decoder block whose output a term reads, if any does."""
        for use in self.recipe.active:
            layer = TERMS[use.loss].layer
            if layer is not None:
                return layer(self._options[use.label], len(decoder_blocks(lm.model)[1]))
        return None

    def _start_model(
        self, lm: LanguageModel, batch: PairBatch, layer: int | None
    ) -> dict[str, tuple[Tensor, Tensor | None, Tensor | None]]:
        """Run the start model on the kinds of rows that are compared with it: what `_logits` returns, hidden states."""
        compared = {use.on for use in self.recipe.active if TERMS[use.loss].reference in LIVE}
        start = self.start or lm
        out: dict[str, tuple[Tensor, Tensor | None, Tensor | None]] = {}
        for kind, rows in batch.sections.items():
            if kind not in compared or rows.stop == rows.start:
                continue
            off = nullcontext() if self.start is not None else lm.edit_disabled()
            with off, evaluating(start.model), captured(start.model, layer) as states:
                part = take_rows(batch.both, rows.start, rows.stop)
                logits, whole = self._logits(start, part, None)
            out[kind] = logits.float(), whole, states[0] if states else None
        return out

    def _logits(
        self, lm: LanguageModel, batch: Batch, module: nn.Module | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits that predict answers, ``(N, V)``, and where a term asks for it all, ``(B, T, V)``."""
        if not self._sees_all:
            return lm.answer_logits(batch, module=module), None
        logits = lm.answer_logits(every_position(batch), module=module)
        whole = logits.view(*batch.input_ids.shape, logits.shape[-1])
        return whole[batch.predicting], whole


def _known(reference: Tensor | None, tokens: slice, logits: Tensor) -> Tensor | None:
    """Return the start model's log-probs of some positions; of no position they are always known."""
    if reference is not None:
        return reference[tokens]
    return None if tokens.stop > tokens.start else logits.new_zeros(0)


def _answer_tokens(lm: LanguageModel, messages: tuple[Message, ...], text: str) -> list[int]:
    """Return the tokens of ``text`` as an answer begins: after the template's gap, without an end of turn."""
    completion = lm.template.completion(messages, text)
    beginning = completion[: completion.find(text) + len(text)] if text in completion else text
    return list(lm.tokenizer(beginning, add_special_tokens=False)["input_ids"])


def _everywhere(logits: Tensor, batch: Batch, rows: slice, start: Tensor | None) -> Everywhere:
    """Cut what is known of all positions to some rows and to the width these need."""
    own = take_rows(batch, rows.start, rows.stop)
    mine = logits[rows, : own.input_ids.shape[1]]
    return Everywhere(
        logits=mine,
        predicting=own.predicting,
        answer=own.labels != -100,
        reference_logits=mine.detach() if start is None else start.float(),
    )


def _hidden(states: Tensor, batch: Batch, rows: slice, start: Tensor | None) -> Hidden:
    """Cut the hidden states of some rows to the width these rows need."""
    mask = batch.attention_mask[rows].bool()
    width = int(mask.any(0).sum())
    return Hidden(
        trained=states[rows, :width],
        mask=mask[:, :width],
        predicting=batch.predicting[rows, :width],
        start=states[rows, :width].detach() if start is None else start[:, :width],
    )
