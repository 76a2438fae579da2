"""One run from rows to trained parameters: what `finetune_baselines.training.run_training` calls."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from eval.errors import ArtifactError, ConfigError
from eval.models.language_model import LanguageModel
from eval.processes import join, wait
from eval.types import Progress
from finetune_baselines.arguments import parts_of_a_step, refuse_sharding
from finetune_baselines.checkpoints import WEIGHTS, drop_checkpoints, keep_lines, last_checkpoint, step_of
from finetune_baselines.isolation import globals_kept, only_trainable
from finetune_baselines.microbatches import MicroBatches
from finetune_baselines.monitoring import Monitor, Watch
from finetune_baselines.sampling import RunSize, Sampling
from finetune_baselines.sharding import check_shardable, is_sharded, sharded
from finetune_baselines.trainer import TrainedModule, UnlearningTrainer
from finetune_baselines.training import Objective, TrainResult, TrainRows, TrainSettings

__all__ = ["train"]


def train(
    lm: LanguageModel,
    objective: Objective,
    rows: TrainRows,
    settings: TrainSettings,
    *,
    sampling: Sampling,
    trainable: nn.Module | None,
    output_dir: Path | None,
    seed: int,
    resume: bool | Path,
    progress: Progress | None,
    monitor: Monitor | None,
) -> TrainResult:
    """See `finetune_baselines.training.run_training`."""
    start = time.perf_counter()
    refuse_sharding()
    if is_sharded():
        check_shardable(lm, objective, trainable)
    join(lm.device)
    module = trainable if trainable is not None else lm.model
    if not any(p.requires_grad for p in module.parameters()):
        raise ConfigError("No parameter of the model requires gradients, so there is nothing to train.")
    size = RunSize(
        num_forget=len(rows.forget),
        num_retain=len(rows.retain),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        retain_per_forget=settings.retain_per_forget,
        seed=seed,
    )
    dataset = MicroBatches(
        rows,
        sampling.schedule(size),
        batch_size=settings.batch_size,
        parts=parts_of_a_step(settings),
        seed=seed,
    )
    with ExitStack() as stack:
        stack.enter_context(globals_kept())
        shards = stack.enter_context(sharded(lm))
        module = module if shards is None else shards.twin
        stack.enter_context(only_trainable(lm.model, module))
        if output_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = output_dir / "checkpoints"
            folder.mkdir(parents=True, exist_ok=True)
        checkpoint = _checkpoint(folder, resume)
        metrics = None if output_dir is None else output_dir / "metrics.jsonl"
        watch = None if monitor is None else Watch(monitor, output_dir)
        if settings.gradient_checkpointing:
            lm.model.activation_checkpointing_enable({"use_reentrant": False})
            stack.callback(lm.model.activation_checkpointing_disable)
        trainer = UnlearningTrainer(
            lm,
            objective,
            settings,
            dataset=dataset,
            module=TrainedModule(lm.model, module),
            folder=folder,
            metrics=metrics,
            seed=seed,
            progress=progress,
            watch=watch,
            shards=shards,
        )
        if metrics is not None:
            keep_lines(metrics, step_of(checkpoint))
        if watch is not None:
            watch.resume(step_of(checkpoint))
            if checkpoint is None:
                trainer.measure()
        wait()
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trained = trainer.trained()
        best = None if watch is None else watch.restore(trained)
        wait()  # the main process drops the best weights' file when the run is over
        return TrainResult(
            steps=trainer.state.global_step,
            seconds=time.perf_counter() - start,
            history=tuple(trainer.history),
            stopped=trainer.stopped,
            best_step=best,
        )


def _checkpoint(folder: Path, resume: bool | Path) -> Path | None:
    if isinstance(resume, Path):
        if last_checkpoint(resume.parent) is None or not (resume / WEIGHTS).is_file():
            raise ArtifactError(f"{resume} is no whole checkpoint; give a checkpoint-N folder of a run.")
        return resume
    if resume:
        return last_checkpoint(folder)
    drop_checkpoints(folder)
    return None
