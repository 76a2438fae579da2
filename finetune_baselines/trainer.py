"""`UnlearningTrainer`: transformers' Trainer with the loss of an `Objective`, and nothing global touched."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers.trainer_callback import PrinterCallback

from eval.artifacts import read_json, write_json
from eval.data.pairing import Pair, RandomPairs, draw
from eval.errors import ArtifactError, ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Progress
from finetune_baselines.batches import PairBatch, Row, collate_pairs
from finetune_baselines.isolation import globals_kept, only_trainable
from finetune_baselines.training import (
    Objective,
    TrainingDivergedError,
    TrainResult,
    TrainRows,
    TrainSettings,
)

__all__ = ["UnlearningTrainer", "train"]

WEIGHTS = "trainable.safetensors"
STATE = "trainer_state.json"
OBJECTIVE = "objective.json"


class TrainedModule(nn.Module):
    """What the Trainer sees: the model that runs, the parameters that train, and no configuration to change."""

    def __init__(self, model: nn.Module, trainable: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trainable = trainable if trainable is not model else None

    def forward(self, **inputs: Any) -> Any:
        """Run the model."""
        return self.model(**inputs)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that receive gradients, by name, shared ones once."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


class PairDataset(Dataset[tuple[list[Row], list[Row]]]):
    """The schedule of a run as rows: item ``i`` depends on the seed and ``i`` alone."""

    def __init__(self, rows: TrainRows, settings: TrainSettings, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.pairs = RandomPairs(
            num_forget=len(rows.forget),
            num_retain=len(rows.retain),
            epochs=settings.epochs,
            seed=seed,
            retain_per_forget=settings.retain_per_forget,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[list[Row], list[Row]]:
        pair: Pair = self.pairs[index]
        choices: dict[str, list[Row]] = {}
        for row in self.rows.forget[pair.forget]:
            choices.setdefault(row.kind, []).append(row)
        forget: list[Row] = []
        for kind, rows in choices.items():
            first = draw(len(rows), self.seed, "answer", pair.epoch, pair.forget)
            count = min(self.rows.draws.get(kind, 1), len(rows))
            forget += [rows[(first + k) % len(rows)] for k in range(count)]
        return forget, [self.rows.retain[i] for i in pair.retain]


class UnlearningTrainer(transformers.Trainer):  # type: ignore[misc]  # its types are not read
    """One pass over a schedule of pairs, with the loss of an objective.

    Args:
        lm: The model in training.
        objective: What is minimised.
        settings: How.
        dataset: The whole run's schedule.
        module: What is trained.
        folder: For checkpoints (private to the run: they hold optimizer state).
        metrics: Where one JSON line a step goes; ``None``: nowhere.
        seed: Of dropout.
        progress: Told each step.
    """

    def __init__(
        self,
        lm: LanguageModel,
        objective: Objective,
        settings: TrainSettings,
        *,
        dataset: PairDataset,
        module: TrainedModule,
        folder: Path,
        metrics: Path | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.lm, self.objective, self.settings = lm, objective, settings
        self.history: list[Mapping[str, Any]] = []
        self.stopped: str | None = None
        self._metrics = metrics
        self._progress = progress
        self._terms: dict[str, float] = {}
        self._shares: list[dict[str, float]] = []
        self._keeps_checkpoints = metrics is not None
        num_steps = math.ceil(len(dataset) / settings.batch_size)
        super().__init__(
            model=module,
            args=_arguments(lm, settings, folder, num_steps, len(dataset), seed, self._keeps_checkpoints),
            data_collator=self._collate,
            train_dataset=dataset,
        )
        self.remove_callback(PrinterCallback)
        # The terms are scaled by their micro-batch's share of the step, so the sum over micro-batches is the loss.
        self.loss_is_scaled_for_ga = True

    # --- data --------------------------------------------------------------------------------------------------

    def _collate(self, items: Sequence[tuple[list[Row], list[Row]]]) -> dict[str, PairBatch]:
        forget = [row for rows, _ in items for row in rows]
        retain = [row for _, rows in items for row in rows]
        return {"pairs": collate_pairs(self.lm, forget, retain)}

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """Fetch a step's micro-batches and note the share of each in the step's rows and tokens."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        units = sorted({"forget_rows", *getattr(self.objective, "units", {}).values()})
        sizes = [[sample["pairs"].size(unit) for unit in units] for sample in samples]
        counts = torch.tensor(sizes, dtype=torch.float64)
        total = counts.sum(0)
        scale = 1
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total.to(device), "sum").cpu()
            scale = self.accelerator.num_processes
        shares = scale * counts / total.clamp(min=1)
        self._shares = [dict(zip(units, row, strict=True)) for row in shares.tolist()]
        return samples, None

    # --- the step ----------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the sum of the objective's terms, each by this micro-batch's share of the step.

        Raises:
            TrainingDivergedError: If a term is not finite.
        """
        batch = replace(inputs["pairs"], step=self.state.global_step, num_steps=self.state.max_steps)
        shares = self._shares.pop(0)
        units = getattr(self.objective, "units", {})
        loss = torch.zeros((), device=self.args.device)
        for name, term in self.objective(self.lm, batch, model).items():
            scaled = term * shares[units.get(name, "forget_rows")]
            value = float(scaled.detach())
            if not math.isfinite(value):
                raise self._diverged(f"the term {name!r} of the loss is {value}")
            self._terms[name] = self._terms.get(name, 0.0) + value
            loss = loss + scaled.to(loss.device)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._last_norm = float(norm) if norm is not None else None
        if self._last_norm is not None and not math.isfinite(self._last_norm):
            largest = max(self._terms, key=lambda name: abs(self._terms[name]), default="")
            raise self._diverged(f"the gradient is {self._last_norm} (largest term: {largest!r})")
        return norm

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        if self._terms:
            self._record(options.get("learning_rate"))
        super()._maybe_log_save_evaluate(*arguments, **options)

    def _record(self, learning_rate: float | None) -> None:
        terms, self._terms = self._over_processes(self._terms), {}
        step = self.state.global_step
        dataset = self.train_dataset
        assert isinstance(dataset, PairDataset)
        seen = min(step * self.settings.batch_size, len(dataset))
        entry = {
            "step": step,
            "epoch": round(seen / len(dataset.rows.forget), 4),
            "learning_rate": learning_rate,
            "grad_norm": self._last_norm,
            "loss": sum(terms.values()),
            "terms": terms,
        }
        self.history.append(entry)
        if self._metrics is not None and self.is_world_process_zero():
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if self._progress is not None:
            self._progress("training", step, self.state.max_steps)
        should_stop = getattr(self.objective, "should_stop", None)
        if should_stop is not None:
            self.stopped = should_stop(terms)
            self.control.should_training_stop = self.control.should_training_stop or self.stopped is not None

    def _over_processes(self, terms: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return terms
        values = torch.tensor(list(terms.values()), dtype=torch.float32, device=self.args.device)
        return dict(zip(terms, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _diverged(self, what: str) -> TrainingDivergedError:
        step = self.state.global_step
        kept = "nothing was written"
        if self._keeps_checkpoints:
            self._save_checkpoint(self.model, None)
            kept = f"the state before it is in {Path(self.args.output_dir) / f'checkpoint-{step}'}"
        return TrainingDivergedError(
            f"Training diverged at step {step + 1} of {self.state.max_steps}: {what}; {kept}. "
            "Lower learning_rate, or set max_forget_loss where the forget loss has no lower bound."
        )

    # --- checkpoints: the trained parameters as safetensors, never a pickle of settings ------------------------

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        module = self.accelerator.unwrap_model(self.model)
        save_file({k: v.detach().cpu().contiguous() for k, v in module.trained().items()}, folder / WEIGHTS)
        if hasattr(self.objective, "state_dict"):
            write_json(folder / OBJECTIVE, self.objective.state_dict())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        module = self.accelerator.unwrap_model(model if model is not None else self.model)
        stored = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        trained = module.trained()
        if stored.keys() != trained.keys():
            raise ArtifactError(
                f"The checkpoint {resume_from_checkpoint} holds other parameters than this run trains; "
                "remove it or choose another output folder."
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(stored[name])
        if hasattr(self.objective, "load_state_dict"):
            self.objective.load_state_dict(read_json(Path(resume_from_checkpoint) / OBJECTIVE))

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """The model stays where the caller put it."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing reads it, and the estimate needs a model's own input names."""
        return 0


def _arguments(
    lm: LanguageModel,
    settings: TrainSettings,
    folder: Path,
    num_steps: int,
    num_items: int,
    seed: int,
    keeps_checkpoints: bool,
) -> transformers.TrainingArguments:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro_batch, rest = divmod(settings.batch_size, settings.accumulation * processes)
    if rest:
        raise ConfigError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} processes with accumulation "
            f"{settings.accumulation}; choose a multiple of {settings.accumulation * processes}."
        )
    warmup = settings.warmup_epochs / settings.epochs
    saves = keeps_checkpoints and settings.save_steps is not None
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        warmup_steps=min(round(warmup * num_steps), num_steps),
        max_grad_norm=settings.max_grad_norm,
        save_strategy="steps" if saves else "no",
        save_steps=settings.save_steps or num_steps,
        save_total_limit=2,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=lm.device.type == "cpu",
        seed=seed % 2**32,
        optim="adamw_torch",
        ddp_find_unused_parameters=False,
    )
    arguments._setup_devices  # noqa: B018  # a cached property, read so that the next line is not undone
    arguments._n_gpu = 1  # one process, one replica: data parallelism is DDP's
    return arguments


def train(
    lm: LanguageModel,
    objective: Objective,
    rows: TrainRows,
    settings: TrainSettings,
    *,
    trainable: nn.Module | None,
    output_dir: Path | None,
    seed: int,
    resume: bool,
    progress: Progress | None,
) -> TrainResult:
    """See `finetune_baselines.training.run_training`."""
    start = time.perf_counter()
    module = trainable if trainable is not None else lm.model
    if not any(p.requires_grad for p in module.parameters()):
        raise ConfigError("No parameter of the model requires gradients, so there is nothing to train.")
    with ExitStack() as stack:
        stack.enter_context(globals_kept())
        stack.enter_context(only_trainable(lm.model, module))
        if output_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = output_dir / "checkpoints"
            folder.mkdir(parents=True, exist_ok=True)
        checkpoint = _last_checkpoint(folder) if resume else None
        metrics = None if output_dir is None else output_dir / "metrics.jsonl"
        if settings.gradient_checkpointing:
            lm.model.activation_checkpointing_enable({"use_reentrant": False})
            stack.callback(lm.model.activation_checkpointing_disable)
        trainer = UnlearningTrainer(
            lm,
            objective,
            settings,
            dataset=PairDataset(rows, settings, seed),
            module=TrainedModule(lm.model, module),
            folder=folder,
            metrics=metrics,
            seed=seed,
            progress=progress,
        )
        if metrics is not None:
            _keep_lines(metrics, _step_of(checkpoint))
        trainer.train(resume_from_checkpoint=checkpoint)
        return TrainResult(
            steps=trainer.state.global_step,
            seconds=time.perf_counter() - start,
            history=tuple(trainer.history),
            stopped=trainer.stopped,
        )


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint; its state file is written last, so half-written ones lack it."""
    complete = [
        path
        for path in folder.glob("checkpoint-*")
        if all((path / name).is_file() for name in (WEIGHTS, STATE))
    ]
    return str(max(complete, key=lambda path: _step_of(str(path)))) if complete else None


def _step_of(checkpoint: str | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])


def _keep_lines(metrics: Path, steps: int) -> None:
    """Keep the first ``steps`` lines of a log: what a resumed run will write again goes."""
    if metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines()[:steps]
        metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
