"""The stages of a comparison: target, oracle and every method, each finished one recorded in its own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from eval.artifacts import fingerprint
from eval.errors import ArtifactError
from eval.report import RunInfo
from eval.report.open_unlearning import EvalLog, read_log
from finetune_baselines.monitoring import monitoring
from unlearn.dynamics import dynamics_monitor, seconds_measuring
from unlearn.measure import Measure
from unlearn.methods import preload
from unlearn.runs import (
    TRAINED,
    Finished,
    aged,
    labelled,
    read_finished,
    read_trained,
    start_stage,
    write_finished,
    write_trained,
)
from unlearn.seeds import averaged, stage_name

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.types import Example, Progress, UnlearningData, UnlearningMethod
    from unlearn.comparison import CompareSettings

__all__ = ["LABELS", "Examining", "Stages"]

LABELS = {"target": "target (knows everything)", "oracle": "oracle (never saw it)"}
"""What the given models are called in tables."""


@runtime_checkable
class Examining(Protocol):
    """A method that can say more about what it made, given the tested rows; not counted as unlearning."""

    def examine(
        self,
        lm: LanguageModel,
        data: UnlearningData,
        splits: Mapping[str, Sequence[Example]],
        output_dir: Path,
    ) -> None:
        """Leave sections for the report in ``output_dir``."""


class Stages:
    """One comparison: what it depends on, and what was found so far."""

    def __init__(
        self,
        benchmark: Benchmark,
        settings: CompareSettings,
        directory: Path,
        target: LanguageModel,
        progress: Progress | None,
        taught: dict[str, float],
    ) -> None:
        from eval.models import GenerationOptions

        self.benchmark, self.settings, self.directory = benchmark, settings, directory
        self.target, self.progress, self.taught = target, progress, taught
        self.finished: dict[str, Finished] = {}
        self.reference: Mapping[str, Any] | None = settings.reference
        self.reference_key = fingerprint(settings.reference) if settings.reference else ""
        self.benchmark_key = fingerprint(benchmark)
        limit = settings.max_new_tokens
        self.options = None if limit is None else GenerationOptions(max_new_tokens=limit)
        self.monitor = dynamics_monitor(benchmark, settings.eval_every)

    def model_key(self, name: str, identity: str, **more: Any) -> str:
        """Fingerprint everything the model of a stage depends on."""
        return fingerprint(
            {"name": name, "identity": identity, "template": self.target.template.name, **more}
        )

    def measured_key(self, model_key: str) -> str:
        """Fingerprint everything the numbers of a stage depend on, given its model.

        Another version of the toolkit measures anew, so that the rows of one table are measured alike; models
        stay as they were trained, and `aged` says by which version.
        """
        return fingerprint(
            {
                "model": model_key,
                "benchmark": self.benchmark_key,
                "options": self.options,
                "reference": self.reference_key,
                "seed": self.settings.seed,
                "version": version("unlearn-toolkit"),
            }
        )

    def log(self, name: str) -> EvalLog:
        """Return a finished stage's evaluation log."""
        return read_log(self.directory / name / "eval")

    def measure_given(self, name: str, lm: LanguageModel) -> None:
        """Evaluate target or oracle."""
        model_key = self.model_key(name, lm.identity)
        key = self.measured_key(model_key)
        finished = read_finished(self.directory / name, key)
        if finished is None:
            start_stage(self.directory / name, model_key)
            info = RunInfo(
                method=name,
                label=LABELS[name],
                kind="none",
                summary="The model before unlearning."
                if name == "target"
                else "Taught the same without the forget set.",
                seconds=self.taught.get(name),
            )
            finished = self._evaluate(name, lm, info, key)
        self.finished[name] = self._noted(name, finished)
        if name == "oracle":
            self.reference = self.log("oracle")
            self.reference_key = key

    def measure_method(self, name: str, method: UnlearningMethod) -> None:
        """Unlearn with one method and every seed, and average over the seeds."""
        first = self.settings.seed
        by_seed = {
            seed: self._one_seed(name, stage_name(name, seed, first), method, seed)
            for seed in range(first, first + self.settings.seeds)
        }
        self.finished[name] = averaged(by_seed)

    def _one_seed(self, name: str, stage: str, method: UnlearningMethod, seed: int) -> Finished:
        """Unlearn, evaluate and record in the folder ``stage``; or read what an earlier run recorded."""
        watched = [self.settings.eval_every, self.benchmark_key] if self.monitor is not None else None
        model_key = self.model_key(
            name,
            self.target.identity,
            data=self.benchmark.data,
            settings=method.settings(self.target),
            seed=seed,
            watched=watched,
        )
        key = self.measured_key(model_key)
        finished = read_finished(self.directory / stage, key)
        if finished is None:
            lm, info = self._made(name, stage, method, seed, model_key)
            if isinstance(method, Examining):
                method.examine(lm, self.benchmark.data, self.benchmark.splits, self.directory / stage)
            finished = self._evaluate(stage, lm, info, key)
        return self._noted(stage, finished)

    def _made(
        self, name: str, stage: str, method: UnlearningMethod, seed: int, key: str
    ) -> tuple[LanguageModel, RunInfo]:
        """Return the model of a stage and what it cost: loaded where it was made before, else unlearned now."""
        kept = read_trained(self.directory / stage, key)
        if kept is not None:
            try:
                return method.load(self.target, self.directory / stage), kept
            except ArtifactError as error:
                self._say(f"{stage}: unlearning again, since what was kept cannot be loaded: {error}")
        # Half a training goes on in the version that began it, or not at all.
        directory = start_stage(self.directory / stage, fingerprint([key, version("unlearn-toolkit")]))
        (directory / TRAINED).unlink(missing_ok=True)
        self._say(f"{stage}: unlearning")
        preload(method)
        with Measure() as cost, monitoring(self.monitor):
            lm = method.unlearn(
                self.target,
                self.benchmark.data,
                directory,
                seed=seed,
                progress=labelled(self.progress, stage),
            )
        info = RunInfo(
            method=name,
            seed=seed,
            kind=method.kind,
            summary=method.summary,
            paper=method.paper,
            seconds=cost.seconds - seconds_measuring(directory),
            peak_memory_mb=cost.peak_memory_mb,
            trainable_parameters=lm.trainable_parameters,
            settings=dict(method.settings(self.target)),
            artifact=stage,
        )
        write_trained(directory, key, info)
        return lm, info

    def _evaluate(self, stage: str, lm: LanguageModel, info: RunInfo, key: str) -> Finished:
        from eval.runner import evaluate

        with Measure() as cost:
            evaluation = evaluate(
                lm,
                self.benchmark,
                reference=self.reference,
                options=self.options,
                output_dir=self.directory / stage,
                seed=self.settings.seed,
                progress=labelled(self.progress, stage),
            )
        results = {metric: result.as_json() for metric, result in evaluation.results.items()}
        finished = Finished(replace(info, eval_seconds=cost.seconds), results)
        write_finished(self.directory / stage, key, finished)
        return finished

    def _noted(self, stage: str, finished: Finished) -> Finished:
        """Return a stage with a note on each part of it that other versions made; say it, too."""
        notes = aged(self.directory / stage)
        for note in notes:
            self._say(f"{stage}: {note}")
        return replace(finished, info=replace(finished.info, notes=[*finished.info.notes, *notes]))

    def _say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what, 0, 0)
