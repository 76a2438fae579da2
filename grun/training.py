"""Training a GRUN edit: forget, retain and gate terms through the shared unlearning trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eval.errors import DataError
from eval.models.language_model import LanguageModel
from eval.models.scoring import answer_logps
from eval.types import Example, Progress
from finetune_baselines.batches import PairBatch, encode_rows
from finetune_baselines.losses import npo_loss
from finetune_baselines.refusals import refusal_answers
from finetune_baselines.training import TrainRows, TrainSettings, Unit, run_training
from grun.blocks import decoder_blocks
from grun.gate_fit import fit_gates
from grun.losses import bounded_ascent_loss, edit_weight, gate_losses
from grun.model import EditedModel, new_edit
from grun.settings import GrunSettings, settings_for

__all__ = ["GrunObjective", "train"]

_LOG = logging.getLogger(__name__)


class GrunObjective:
    r"""L = omega(t) * (L_forget + lambda_r L_retain) + lambda_g L_gate (arXiv:2502.17823, equation 6).

    Args:
        settings: Which forget term, and all weights.
    """

    units: Mapping[str, Unit] = {
        "forget": "forget_rows",
        "retain": "retain_rows",
        "gate_open": "forget_rows",
        "gate_shut": "retain_rows",
    }

    def __init__(self, settings: GrunSettings) -> None:
        self.settings = settings

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the weighted terms of one batch, each of shape ``()``.

        Args:
            lm: The edited model.
            batch: Forget rows, then retain rows.
            module: What to run instead of ``lm.model`` (a data-parallel wrapper).
        """
        if not isinstance(lm, EditedModel):
            raise TypeError(f"GRUN trains an EditedModel, not a {type(lm).__name__}.")
        recomputes = any(getattr(part, "gradient_checkpointing", False) for part in lm.model.modules())
        if lm.model.training and not recomputes:  # recomputation happens in training mode only
            lm.model.eval()  # the base is frozen, so its dropout would only be noise in the gate's input
        both, settings = batch.both.to(lm.device), self.settings
        logits, gate_logits = lm.answer_and_gate_logits(both, module=module)
        rows = both.rows
        logps = answer_logps(logits, both.targets, rows, len(both))
        nlls = -logps / rows.bincount(minlength=len(both)).clamp(min=1)
        num_forget = batch.num_forget
        scale = edit_weight(batch.step + 1, settings.gate_warmup_steps)
        opened, shut = gate_losses(gate_logits, num_forget)
        forget = self._forget(batch, logps[:num_forget], nlls[:num_forget], rows)
        terms = {
            "forget": scale * settings.forget_weight * forget,
            "gate_open": settings.gate_weight / 2 * opened,
        }
        if batch.num_retain:
            terms["retain"] = scale * settings.retain_weight * nlls[num_forget:].mean()
            terms["gate_shut"] = settings.gate_weight / 2 * shut
        return terms

    def _forget(self, batch: PairBatch, logps: Tensor, nlls: Tensor, rows: Tensor) -> Tensor:
        match self.settings.loss:
            case "gd":
                return bounded_ascent_loss(nlls, margin=self.settings.margin)
            case "idk":
                return nlls.mean()
            case "npo":
                if batch.reference_logps is None:
                    raise RuntimeError(
                        "NPO needs reference log-probabilities; encode the rows with a reference."
                    )
                is_forget = rows < batch.num_forget
                reference = batch.reference_logps.to(logps.device)[is_forget]
                summed = logps.new_zeros(batch.num_forget).index_add(
                    0, rows[is_forget], reference.to(logps.dtype)
                )
                return npo_loss(logps, summed, beta=self.settings.beta)


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
        forget: Questions with the answers to forget.
        retain: Questions with answers to keep; the gates learn to stay shut on them.
        loss: ``gd``, ``idk`` or ``npo``.
        background: Further innocent questions; those with an answer are kept like ``retain``, the others only
            teach the gates to stay shut.
        refusals: What ``idk`` teaches to say; empty: the baselines' own lines.
        overrides: Settings to replace, by name (see `GrunSettings`).
        output_dir: Where the trainer's ``metrics.jsonl`` goes; the edit itself is not saved.
        seed: Of initial bases, data order, partners and refusals.
        progress: Told the steps.

    Raises:
        ConfigError: If a setting is not allowed.
        DataError: If there is nothing to forget or to keep, a row has no question or no answer, or a row is in
            both sets.
        TrainingDivergedError: If a term of the loss is not finite.
    """
    settings = settings_for(loss, overrides, num_blocks=len(decoder_blocks(lm.model)[1]))
    kept = [*retain, *(row for row in background if row.answer and row.text is None)]
    _check(forget, kept)
    edited = _fresh_edit(lm, settings, seed)
    gate_nats: list[float] = []
    if settings.gate_fit_steps:
        gate_nats = fit_gates(edited, forget, [*retain, *background], steps=settings.gate_fit_steps)
    with edited.training_session(through_pyvene=settings.through_pyvene) as trainable:
        result = run_training(
            edited,
            GrunObjective(settings),
            _rows(lm, settings, forget, kept, refusals, seed),
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
    settings: GrunSettings,
    forget: Sequence[Example],
    kept: Sequence[Example],
    refusals: Sequence[str],
    seed: int,
) -> TrainRows:
    if settings.loss == "idk":
        answers = refusal_answers(len(forget), refusals, variants=settings.passes(len(forget)), seed=seed)
    else:
        answers = [(str(row.answer),) for row in forget]
    flat = [(row, answer) for row, given in zip(forget, answers, strict=True) for answer in given]
    encoded = iter(
        encode_rows(
            lm,
            [row for row, _ in flat],
            [answer for _, answer in flat],
            reference=lm if settings.loss == "npo" else None,
        )
    )
    return TrainRows(
        forget=[tuple(next(encoded) for _ in given) for given in answers],
        retain=encode_rows(lm, kept, [str(row.answer) for row in kept]),
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
