"""`train` for Python users, and `FineTuning`, the same as an `UnlearningMethod` with an artifact on disk."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eval.artifacts import fingerprint, writable_dir, write_json
from eval.errors import ArtifactError, ConfigError, DataError
from eval.models.language_model import LanguageModel
from eval.processes import is_main, join, wait
from eval.types import Example, Kind, Progress, UnlearningData, UnlearningMethod
from finetune_baselines.artifact import MANIFEST, read_artifact, write_artifact
from finetune_baselines.batches import Row, encode_rows
from finetune_baselines.blocks import restrict_to_recipe
from finetune_baselines.checkpoints import check_owner, claim
from finetune_baselines.configuration import Configuration, check_overrides, configure
from finetune_baselines.forget_answers import ANSWERS
from finetune_baselines.monitoring import Monitor
from finetune_baselines.objective import LIVE, needs_reference, new_objective
from finetune_baselines.recipes import RECIPES, recipe
from finetune_baselines.recipes.merged import TiesOptions
from finetune_baselines.recipes.options import GnmTemplate
from finetune_baselines.sampling import SAMPLINGS
from finetune_baselines.sections import SECTIONS
from finetune_baselines.sharding import is_sharded
from finetune_baselines.supply import supply
from finetune_baselines.ties import train_and_merge
from finetune_baselines.training import TrainResult, TrainRows, TrainSettings, run_training

__all__ = ["METHODS", "FineTuning", "train"]

_LOG = logging.getLogger(__name__)
_WITH_ARTICLE = {"edit": "an edit", "suppression": "a filter"}


def train(
    lm: LanguageModel,
    method: str,
    *,
    forget: Sequence[Example],
    retain: Sequence[Example] = (),
    parametrization: str | None = None,
    refusals: Sequence[str] = (),
    alternates: Mapping[str, tuple[str, ...]] | None = None,
    negatives: Mapping[str, tuple[str, ...]] | None = None,
    output_dir: Path | str | None = None,
    seed: int = 0,
    settings: TrainSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    resume_from: Path | str | None = None,
    monitor: Monitor | None = None,
) -> LanguageModel:
    """Fine-tune a copy of ``lm`` until it no longer reveals ``forget``; ``lm`` stays usable and unchanged.

    Full fine-tuning costs a second copy of the weights, gradients and optimizer states; ``lora`` shares the
    caller's weights (do not change them in place afterwards) and adds a small adapter.

    Args:
        lm: The model to start from.
        method: A name in `RECIPES`.
        forget: Questions with the answers to forget.
        retain: Questions with answers to keep; methods with a retain term need them.
        parametrization: A name in `finetune_baselines.parametrization.PARAMETRIZATIONS`; ``None``: the method's own
            (mostly ``full``).
        refusals: Lines to teach, for methods that teach any; empty: the package's own.
        alternates: Other answers to forget questions by example id, for ``altpo``.
        negatives: Gradual negatives by example id, nearest to the gold answer first, for ``gnm``.
        output_dir: Where the artifact and ``metrics.jsonl`` go; ``None``: nothing is written.
        seed: Of data order, partners, refusals, dropout and adapter initialisation.
        settings: How to optimise, replacing the preset's settings.
        overrides: Single settings by name (see `finetune_baselines.configuration`); they win over ``settings``.
        progress: Told the steps.
        resume_from: A checkpoint of an interrupted run of the same method; without it a run in ``output_dir`` that
            was interrupted goes on from its newest one (``save_steps`` says how often one is written).
        monitor: What to measure while it trains, when to stop and which step's weights to return.

    Returns:
        The tuned model, of kind ``weights``.

    Raises:
        UnknownNameError: If the method, preset or parametrization is unknown.
        ConfigError: If a setting is not allowed.
        DataError: If there is nothing to forget, nothing to keep where the method needs it, a row has no
            question or no answer, or a row is in both sets.
        TrainingDivergedError: If a term of the loss is not finite.
    """
    own = {} if parametrization is None else {"parametrization": parametrization}
    configuration = _configuration(lm, method, {**own, **(overrides or {})}, settings)
    data = UnlearningData(
        forget=tuple(forget),
        retain=tuple(retain),
        refusals=tuple(refusals),
        alternates=alternates or {},
        negatives=negatives or {},
    )
    folder = None if output_dir is None else Path(output_dir)
    checkpoint = None if resume_from is None else Path(resume_from)
    return _unlearn(
        lm,
        configuration,
        data,
        folder,
        seed=seed,
        progress=progress,
        resume_from=checkpoint,
        monitor=monitor,
    )


@dataclass
class FineTuning:
    """A recipe as an `UnlearningMethod`.

    Args:
        name: A name in `RECIPES`.
        overrides: Settings that differ from the preset.

    Raises:
        UnknownNameError: If the method, preset or parametrization is unknown.
        ConfigError: If a setting is not allowed.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "weights"
    summary: str = field(init=False)
    paper: str = field(init=False)

    def __post_init__(self) -> None:
        self.summary, self.paper = recipe(self.name).summary, recipe(self.name).paper
        check_overrides(self.name, self.overrides)

    def settings(self, target: LanguageModel) -> dict[str, Any]:
        """Return the settings a run on ``target`` would use, preset included."""
        return _configuration(target, self.name, self.overrides, None).as_json()

    def unlearn(
        self,
        target: LanguageModel,
        data: UnlearningData,
        output_dir: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Train and write the artifact; see `train` and `UnlearningMethod`. An interrupted run is taken up again."""
        configuration = _configuration(target, self.name, self.overrides, None)
        return _unlearn(target, configuration, data, output_dir, seed=seed, progress=progress)

    def load(self, target: LanguageModel, output_dir: Path) -> LanguageModel:
        """Load what `unlearn` wrote.

        Raises:
            ArtifactError: If it is missing, half-written, of another method or of another base model.
        """
        return read_artifact(target, output_dir, self.name)


def _method(name: str, overrides: Mapping[str, Any]) -> UnlearningMethod:
    return FineTuning(name, dict(overrides))


METHODS: Mapping[str, Callable[[Mapping[str, Any]], UnlearningMethod]] = MappingProxyType(
    {name: functools.partial(_method, name) for name in RECIPES}
)
"""Method name to a factory that takes a user's overrides."""


def _configuration(
    lm: LanguageModel, method: str, overrides: Mapping[str, Any], settings: TrainSettings | None
) -> Configuration:
    size = sum(p.numel() for p in lm.model.parameters())
    if settings is not None:
        overrides = {**asdict(settings), **overrides}
    return configure(method, overrides, num_parameters=size)


def _unlearn(
    lm: LanguageModel,
    configuration: Configuration,
    data: UnlearningData,
    output_dir: Path | None,
    *,
    seed: int,
    progress: Progress | None,
    resume_from: Path | None = None,
    monitor: Monitor | None = None,
) -> LanguageModel:
    _check_data(configuration, data)
    _check_model(lm)
    join(lm.device)
    data, sections = supply(lm, configuration.recipe, data, output_dir, seed=seed, progress=progress)
    if TiesOptions in configuration.recipe.extras:
        return _merge(lm, configuration, data, output_dir, seed=seed, progress=progress)
    resume = False if output_dir is None else _claim(output_dir, lm, configuration, data, seed)
    if resume_from is not None:
        _check_checkpoint(resume_from, configuration.recipe.name)
    part = configuration.parametrization
    tuned = part.prepare(lm, seed=seed, data=data, progress=progress)
    restrict_to_recipe(tuned.model, configuration.recipe)
    rows = _rows(tuned, configuration, data, seed)
    start = _start_model(lm, configuration)
    objective = part.objective(tuned, new_objective(configuration.recipe, start=start, seed=seed))
    result = run_training(
        tuned,
        objective,
        rows,
        _fitted(configuration.train, len(data.forget)),
        sampling=configuration.recipe.get(SAMPLINGS[configuration.recipe.sampling]),
        output_dir=output_dir,
        seed=seed,
        resume=resume_from or resume,
        progress=progress,
        monitor=monitor,
    )
    tuned = part.finish(lm, tuned)
    tuned.model.eval()
    if result.stopped:
        _LOG.warning("%s stopped after %d steps: %s", configuration.recipe.name, result.steps, result.stopped)
    if output_dir is not None and is_main():
        write_artifact(
            tuned, configuration, output_dir, base=lm.identity, training=_summary(tuned, result, seed)
        )
        sections += part.sections(tuned, configuration.recipe.name)
        if sections:
            write_json(output_dir / SECTIONS, [asdict(section) for section in sections])
        shutil.rmtree(output_dir / "checkpoints", ignore_errors=True)
    wait()
    return tuned


def _merge(
    lm: LanguageModel,
    configuration: Configuration,
    data: UnlearningData,
    output_dir: Path | None,
    *,
    seed: int,
    progress: Progress | None,
) -> LanguageModel:
    """Train two adapters and write what they merge to."""
    if output_dir is not None:
        writable_dir(output_dir)
        (output_dir / MANIFEST).unlink(missing_ok=True)
    tuned, part, section = train_and_merge(
        _unlearn, lm, configuration, data, output_dir, seed=seed, progress=progress
    )
    if output_dir is not None and is_main():
        training = {"seed": seed, "trainable_parameters": tuned.trainable_parameters}
        merged = replace(configuration, parametrization=part)
        write_artifact(tuned, merged, output_dir, base=lm.identity, training=training)
        write_json(output_dir / SECTIONS, [asdict(section)])
    wait()
    return tuned


def _summary(tuned: LanguageModel, result: TrainResult, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "trainable_parameters": tuned.trainable_parameters,
        "stopped": result.stopped,
        "best_step": result.best_step,
        "last_step": result.history[-1] if result.history else None,
    }


def _fitted(settings: TrainSettings, num_forget: int) -> TrainSettings:
    """Cap the batch at the number of forget rows, keeping the number of micro-batches a divisor."""
    if settings.batch_size <= num_forget:
        return settings
    accumulation = max(d for d in range(1, settings.accumulation + 1) if num_forget % d == 0)
    return replace(settings, batch_size=num_forget, accumulation=accumulation)


def _start_model(lm: LanguageModel, configuration: Configuration) -> LanguageModel | None:
    """Return the frozen start model where the objective needs its logits and no edit can be switched off."""
    if not needs_reference(configuration.recipe) & LIVE:
        return None
    if configuration.parametrization.starts_at_base:
        # Spread weights are gathered by all processes at once, and not all have rows to compare in every forward.
        return lm if is_sharded() else None
    size = sum(p.numel() * p.element_size() for p in lm.model.parameters()) / 2**20
    _LOG.warning(
        "%s with %s fine-tuning compares with the start model at every step: one more forward a step, and the "
        "start model (%.0f MiB) stays in memory; with lora the adapter is switched off instead.",
        configuration.recipe.name,
        configuration.parametrization.name,
        size,
    )
    return lm


def _rows(lm: LanguageModel, configuration: Configuration, data: UnlearningData, seed: int) -> TrainRows:
    recipe = configuration.recipe
    reference = lm if "logps" in needs_reference(recipe) else None
    forget: list[list[Row]] = [[] for _ in data.forget]
    worded = recipe.get(GnmTemplate).worded if GnmTemplate in recipe.extras else str
    for kind in recipe.answer_kinds:
        texts = ANSWERS[kind].texts(data, recipe, configuration.train.epochs, seed)
        flat = [(i, worded(text)) for i, given in enumerate(texts) for text in given]
        rows = encode_rows(
            lm, [data.forget[i] for i, _ in flat], [text for _, text in flat], reference=reference, kind=kind
        )
        for (i, _), row in zip(flat, rows, strict=True):
            forget[i].append(row)
    retain: list[Row] = []
    if recipe.uses_retain:
        retain = encode_rows(lm, data.retain, [worded(_answer(row)) for row in data.retain])
    draws: dict[str, int] = {kind: ANSWERS[kind].draws(recipe) for kind in recipe.answer_kinds}
    return TrainRows(forget=forget, retain=retain, draws=draws)


def _answer(row: Example) -> str:
    if row.answer is None or (row.question is None and row.messages is None):
        raise DataError(
            f"Example {row.id!r} has no question with an answer; fine-tuning methods train on question-answer rows."
        )
    return row.answer


def _texts(data: UnlearningData) -> list[Any]:
    return [[[list(r.conversation), r.answer] for r in part] for part in (data.forget, data.retain)] + [
        list(data.refusals),
        sorted(data.alternates.items()),
        sorted(data.negatives.items()),
    ]


def _check_data(configuration: Configuration, data: UnlearningData) -> None:
    name = configuration.recipe.name
    if not data.forget:
        raise DataError(f"The forget set is empty, so {name} has nothing to unlearn.")
    if configuration.recipe.uses_retain and not data.retain:
        off = " ".join(f"{use.weight_key}=0" for use in configuration.recipe.active if use.on == "retain")
        raise DataError(
            f"{name} has a retain term and needs retain rows, but none were given; give some, set {off}, or see "
            "`ga` and `npo`, which need none."
        )
    kept = {(_answer(row), row.conversation): row.id for row in data.retain}
    for row in data.forget:
        other = kept.get((_answer(row), row.conversation))
        if other is not None:
            raise DataError(
                f"Forget row {row.id!r} equals retain row {other!r} ({row.conversation[-1].content[:60]!r}); "
                "a row cannot be both forgotten and kept."
            )


def _check_model(lm: LanguageModel) -> None:
    if lm.kind in _WITH_ARTICLE:
        raise ConfigError(
            f"{lm.name} carries {_WITH_ARTICLE[lm.kind]} that fine-tuning would drop; fine-tune the model beneath it."
        )


def _claim(
    output_dir: Path, lm: LanguageModel, configuration: Configuration, data: UnlearningData, seed: int
) -> bool:
    """Make the folder this run's; return whether an interrupted run of the very same kind can go on."""
    name = configuration.recipe.name
    run = fingerprint([configuration.as_json(), name, lm.identity, seed, _texts(data)])
    if is_main():
        writable_dir(output_dir)
        (output_dir / MANIFEST).unlink(missing_ok=True)
    wait()
    return claim(output_dir / "checkpoints", name, run)


def _check_checkpoint(checkpoint: Path, name: str) -> None:
    if not checkpoint.is_dir():
        raise ArtifactError(f"There is no checkpoint {checkpoint}; give a checkpoint-N folder of a run.")
    check_owner(checkpoint.parent, name)
