"""Training a GRUN edit: forget, retain and gate terms through the shared unlearning trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.errors import ConfigError, DataError
from eval.models.blocks import decoder_blocks
from eval.models.language_model import LanguageModel
from eval.types import Example, Progress
from finetune_baselines.batches import Row, encode_rows
from finetune_baselines.objective import needs_reference
from finetune_baselines.recipes import Recipe
from finetune_baselines.refusals import refusal_answers
from finetune_baselines.training import TrainRows, TrainSettings, run_training
from grun.documents import with_prompts
from grun.gate_fit import fit_gates
from grun.model import EditedModel, new_edit
from grun.objective import GradientCheck, GrunObjective
from grun.recipes import recipe_of
from grun.settings import GrunSettings, settings_for

__all__ = ["train"]

_LOG = logging.getLogger(__name__)


def train(
    lm: LanguageModel,
    *,
    forget: Sequence[Example],
    retain: Sequence[Example],
    loss: str = "npo",
    background: Sequence[Example] = (),
    refusals: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    output_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EditedModel:
    """Train a gated edit that makes ``lm`` stop revealing ``forget``; ``lm`` itself stays plain.

    Args:
        lm: The model to put the edit on; owned exclusively until this returns.
        forget: Questions with the answers to forget, or documents (see `grun.documents`).
        retain: Questions with answers to keep, or documents; the gates learn to stay shut on them.
        loss: ``gd``, ``idk``, ``npo``, ``rmu``, or the name of a fine-tuning method whose terms to use.
        background: Further innocent questions; those with an answer are kept like ``retain``, the others only
            teach the gates to stay shut.
        refusals: What ``idk`` teaches to say; empty: the baselines' own lines.
        overrides: Settings to replace, by name (see `GrunSettings`).
        output_dir: Where the trainer's ``metrics.jsonl`` goes; the edit itself is not saved.
        seed: Of initial bases, data order, partners and refusals.
        progress: Told the steps.

    Raises:
        ConfigError: If a setting is not allowed, or the loss does not reach every part of the edit.
        DataError: If there is nothing to forget or to keep, a row has no question or no answer, or a row is in
            both sets.
        UnknownNameError: If there is no such loss.
        TrainingDivergedError: If a term of the loss is not finite.
    """
    settings = settings_for(loss, overrides, num_blocks=len(decoder_blocks(lm.model)[1]))
    forget, retain, background = (with_prompts(rows) for rows in (forget, retain, background))
    kept = [*retain, *(row for row in background if row.answer)]
    _check(forget, kept)
    edited = _fresh_edit(lm, settings, seed)
    recipe = recipe_of(settings, edited.config.layers)
    rows = _rows(lm, recipe, settings, forget, kept, refusals, seed)
    gate_nats: list[float] = []
    if settings.gate_fit_steps:
        gate_nats = fit_gates(
            edited,
            forget,
            [*retain, *background],
            steps=settings.gate_fit_steps,
            variants=settings.gate_variants,
            rounds=settings.gate_rounds,
            seed=seed,
        )
    reads_states = "rmu_layer" in recipe.options  # pyvene's hooks would run behind the one that reads them
    through_pyvene = settings.through_pyvene and not reads_states
    with edited.training_session(through_pyvene=through_pyvene) as trainable:
        for edit in edited.interventions.values():
            edit.gate.requires_grad_(settings.gate_weight > 0)
        objective = GrunObjective(recipe, settings, start=lm, seed=seed, check=GradientCheck(trainable))
        result = run_training(
            edited,
            objective,
            rows,
            _train_settings(settings, len(forget)),
            trainable=trainable,
            output_dir=output_dir,
            seed=seed,
            progress=progress,
        )
    edited.training.update(
        settings=asdict(settings),
        seed=seed,
        steps=result.steps,
        seconds=round(result.seconds, 3),
        trainable_parameters=edited.trainable_parameters,
        parameter_share=edited.parameter_share,
        gate_fit_nats=[round(value, 4) for value in gate_nats],
        last_step=dict(result.history[-1]) if result.history else None,
    )
    return edited


def _fresh_edit(lm: LanguageModel, settings: GrunSettings, seed: int) -> EditedModel:
    edited, num_merged = new_edit(
        lm,
        layers=settings.layers,
        rank=settings.rank,
        gate=settings.gate,
        positions=settings.positions,
        seed=seed,
    )
    if num_merged:
        _LOG.warning(
            "%d of the layers %s name a block that another one names already; %d blocks are edited: %s.",
            num_merged,
            settings.layers,
            len(edited.config.layers),
            edited.config.layers,
        )
    return edited


def _train_settings(settings: GrunSettings, num_forget: int) -> TrainSettings:
    return TrainSettings(
        learning_rate=settings.learning_rate,
        epochs=settings.passes(num_forget),
        batch_size=min(settings.batch_size, num_forget),
        retain_per_forget=settings.retain_per_forget,
        weight_decay=0.0,
        warmup_epochs=settings.warmup_epochs,
    )


def _rows(
    lm: LanguageModel,
    recipe: Recipe,
    settings: GrunSettings,
    forget: Sequence[Example],
    kept: Sequence[Example],
    refusals: Sequence[str],
    seed: int,
) -> TrainRows:
    reference = lm if "logps" in needs_reference(recipe) else None
    alternatives: list[list[Row]] = [[] for _ in forget]
    for kind in recipe.answer_kinds:
        if kind == "refusal":
            lines = tuple(refusals)[: settings.refusal_lines or None]
            answers = refusal_answers(len(forget), lines, variants=settings.passes(len(forget)), seed=seed)
        elif kind == "gold":
            answers = [(str(row.answer),) for row in forget]
        else:
            raise ConfigError(
                f"loss {settings.loss!r} needs answers of kind {kind!r}, which GRUN does not write; use a loss on gold "
                "answers or refusals."
            )
        flat = [(i, answer) for i, given in enumerate(answers) for answer in given]
        encoded = encode_rows(
            lm,
            [forget[i] for i, _ in flat],
            [answer for _, answer in flat],
            reference=reference,
            kind=kind,
        )
        for (i, _), row in zip(flat, encoded, strict=True):
            alternatives[i].append(row)
    return TrainRows(
        forget=alternatives,
        retain=encode_rows(lm, kept, [str(row.answer) for row in kept]),
        draws=dict.fromkeys(recipe.answer_kinds, 1),
    )


def _check(forget: Sequence[Example], kept: Sequence[Example]) -> None:
    if not forget:
        raise DataError("The forget set is empty, so GRUN has nothing to unlearn.")
    if not kept:
        raise DataError("GRUN needs retain rows: without them its gates would open on every prompt.")
    for row in (*forget, *kept):
        if row.answer is None or (row.question is None and row.messages is None):
            raise DataError(
                f"Example {row.id!r} has no question with an answer; GRUN trains on question-answer rows."
            )
    shared = {(row.conversation, row.answer): row.id for row in kept}
    for row in forget:
        other = shared.get((row.conversation, row.answer))
        if other is not None:
            raise DataError(
                f"Forget row {row.id!r} equals retain row {other!r} ({row.conversation[-1].content[:60]!r}); "
                "a row cannot be both forgotten and kept."
            )
