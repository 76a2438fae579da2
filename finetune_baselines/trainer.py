"""`UnlearningTrainer`: transformers' Trainer with the loss of an `Objective`, and nothing global touched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback

from eval.artifacts import read_json, write_json
from eval.errors import ArtifactError
from eval.models.language_model import LanguageModel
from eval.processes import is_main
from eval.types import Progress
from finetune_baselines.arguments import training_arguments
from finetune_baselines.batches import PairBatch, collate_pairs
from finetune_baselines.checkpoints import OBJECTIVE, TENSORS, WEIGHTS
from finetune_baselines.isolation import globals_kept
from finetune_baselines.microbatches import MicroBatch, MicroBatches
from finetune_baselines.monitoring import Watch
from finetune_baselines.perturbation import Perturbation, perturbed, uphill
from finetune_baselines.sampling import Schedule
from finetune_baselines.sharding import Shards, optimizer_shards, whole, whole_state
from finetune_baselines.training import Objective, TrainingDivergedError, TrainSettings

__all__ = ["TrainedModule", "UnlearningTrainer"]


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


class _StepHooks(transformers.TrainerCallback):  # type: ignore[misc]  # its types are not read
    """A fresh optimizer where a phase starts; the objective's hook between an update and the gradients' end."""

    def __init__(self, schedule: Schedule, objective: Objective) -> None:
        self.starts = set(schedule.starts[1:])
        self.after_update: Callable[[int], None] | None = getattr(objective, "after_update", None)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Forget the moments of the phase before."""
        if state.global_step in self.starts:
            more["optimizer"].state.clear()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Call the hook with the number of the step just made, from 0."""
        if self.after_update is not None:
            self.after_update(state.global_step)


class UnlearningTrainer(transformers.Trainer):  # type: ignore[misc]  # its types are not read
    """One pass over a schedule, with the loss of an objective.

    Args:
        lm: The model in training.
        objective: What is minimised.
        settings: How.
        dataset: The whole run.
        module: What is trained.
        folder: For checkpoints (private to the run: they hold optimizer state).
        metrics: Where one JSON line a step goes; ``None``: nowhere.
        seed: Of dropout.
        progress: Told each step.
        watch: Measures along the way; ``None``: nothing does.
        shards: The weights of ``lm``, where they are spread over the processes.
    """

    def __init__(
        self,
        lm: LanguageModel,
        objective: Objective,
        settings: TrainSettings,
        *,
        dataset: MicroBatches,
        module: TrainedModule,
        folder: Path,
        metrics: Path | None,
        seed: int,
        progress: Progress | None,
        watch: Watch | None = None,
        shards: Shards | None = None,
    ) -> None:
        self.lm, self.objective, self.settings, self.watch = lm, objective, settings, watch
        self.shards = shards
        self._whole = module if shards is None else TrainedModule(shards.model, shards.model)
        self.schedule = dataset.schedule
        self.history: list[Mapping[str, Any]] = []
        self.stopped: str | None = None
        self._metrics = metrics
        self._progress = progress
        self._terms: dict[str, float] = {}
        self._broken: str | None = None
        self._samples: list[dict[str, Any]] = []
        self._offsets: list[Tensor] = []
        self._keeps_checkpoints = metrics is not None
        super().__init__(
            model=module,
            args=training_arguments(
                lm, settings, folder, seed=seed, keeps_checkpoints=self._keeps_checkpoints
            ),
            data_collator=self._collate,
            train_dataset=dataset,
            callbacks=[_StepHooks(dataset.schedule, objective)],
        )
        if shards is not None:  # autocast alone: no data-parallel wrapper
            self.accelerator.prepare_model(module, device_placement=False, evaluation_mode=True)
            module._is_accelerate_prepared = True  # type: ignore[assignment]  # accelerate's own mark
        self.remove_callback(PrinterCallback)
        for callback in self.callback_handler.callbacks:
            if getattr(callback, "logging_dir", "") is None:  # else its log would go when the checkpoints do
                callback.logging_dir = str(folder.parent / "logs")
        # The terms are scaled by their micro-batch's share of the step, so the sum over micro-batches is the loss.
        self.loss_is_scaled_for_ga = True

    # --- data --------------------------------------------------------------------------------------------------

    def _collate(self, items: Sequence[MicroBatch]) -> dict[str, PairBatch]:
        (item,) = items
        return {"pairs": replace(collate_pairs(self.lm, item.forget, item.retain), is_filler=item.is_filler)}

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
        for sample, row in zip(samples, shares.tolist(), strict=True):
            sample["shares"] = dict(zip(units, row, strict=True))
        self._samples, self._offsets = samples, []
        return samples, None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Give every phase its own warm-up and decay."""
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = self.lr_scheduler  # type: ignore[has-type]
        if scheduler is None:
            settings = self.settings

            def factor(step: int) -> float:
                return self.schedule.learning_rate_factor(
                    step, kind=settings.schedule, warmup_epochs=settings.warmup_epochs
                )

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # --- the step ----------------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add one micro-batch's gradients; where the objective declares a perturbation, each side's at its weights."""
        inner: Perturbation | None = getattr(self.objective, "perturbation", None)
        if inner is None or not inner.rho:
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        parameters = list(self.accelerator.unwrap_model(model).trained().values())
        if not self._offsets:
            model.train()
            self._offsets = uphill(self._step_gradient(parameters, inner.side), inner.rho)
        loss = torch.zeros((), device=self.args.device)
        uphill_part, rest = inputs["pairs"].split(inner.side)
        if len(uphill_part):
            with perturbed(parameters, self._offsets):
                loss = loss + super().training_step(model, {**inputs, "pairs": uphill_part})
        if len(rest):
            loss = loss + super().training_step(model, {**inputs, "pairs": rest})
        return loss

    def _step_gradient(self, parameters: Sequence[nn.Parameter], side: str) -> list[Tensor]:
        """Return the gradient of one side's terms over the whole step and all processes."""
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for sample in self._samples:
            part, _ = sample["pairs"].split(side)
            if not len(part):
                continue
            loss = sum(self._scaled_terms(self.lm.model, part, sample["shares"]).values())
            assert isinstance(loss, Tensor)
            for kept, g in zip(total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if g is not None:
                    kept.add_(g)
        if self.accelerator.num_processes > 1:
            total = [self.accelerator.reduce(g, "mean") for g in total]
        return total

    def _scaled_terms(
        self, model: nn.Module, batch: PairBatch, shares: Mapping[str, float]
    ) -> dict[str, Tensor]:
        batch = replace(batch, step=self.state.global_step, num_steps=self.state.max_steps)
        units = getattr(self.objective, "units", {})
        terms = self.objective(self.lm, batch, model)
        return {name: term * shares[units.get(name, "forget_rows")] for name, term in terms.items()}

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
        loss = torch.zeros((), device=self.args.device)
        for name, term in self._scaled_terms(model, inputs["pairs"], inputs["shares"]).items():
            value = float(term.detach())
            if not math.isfinite(value):
                self._broken = f"the term {name!r} of the loss is {value}"
                if self.accelerator.num_processes == 1:
                    raise self._diverged(self._broken)  # several processes stop together, at the gradient
            self._terms[name] = self._terms.get(name, 0.0) + value
            loss = loss + term.to(loss.device)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = None if norm is None else whole(norm)
        self._last_norm = float(norm) if norm is not None else None
        is_bad = self._broken is not None or (norm is not None and not math.isfinite(float(norm)))
        if self.accelerator.num_processes > 1:
            flag = torch.tensor(float(is_bad), device=self.args.device)
            is_bad = bool(self.accelerator.reduce(flag, "sum") > 0)
        if is_bad:
            largest = max(self._terms, key=lambda name: abs(self._terms[name]), default="")
            elsewhere = f"the gradient is {self._last_norm} (largest term: {largest!r})"
            raise self._diverged(self._broken or elsewhere)
        return norm

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        if self._terms:
            self._record(options.get("learning_rate"))
        super()._maybe_log_save_evaluate(*arguments, **options)

    def _record(self, learning_rate: float | None) -> None:
        terms, self._terms = self._over_processes(self._terms), {}
        step = self.state.global_step
        phase, local = self.schedule.locate(step - 1)
        entry = {
            "step": step,
            "epoch": round(phase.epochs * (local + 1) / len(phase.steps), 4),
            "learning_rate": learning_rate,
            "grad_norm": self._last_norm,
            "loss": sum(terms.values()),
            "terms": terms,
        }
        if len(self.schedule.phases) > 1:
            entry["phase"] = phase.name
        self.history.append(entry)
        if self._metrics is not None and is_main():
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if self.settings.report_to != "none":
            self.log({"loss": entry["loss"], "learning_rate": learning_rate, **terms})
        if self._progress is not None:
            self._progress("training", step, self.state.max_steps)
        should_stop = getattr(self.objective, "should_stop", None)
        if should_stop is not None:
            self.stopped = should_stop(terms)
        self.stopped = self.measure(is_last=self.stopped is not None) or self.stopped
        self.control.should_training_stop = self.control.should_training_stop or self.stopped is not None

    def measure(self, *, is_last: bool = False) -> str | None:
        """Evaluate the model where it is due; return a sentence that ends the run, or ``None``."""
        step, steps = self.state.global_step, len(self.schedule)
        if self.watch is None or not self.watch.is_due(step, step if is_last else steps):
            return None
        with globals_kept(), nullcontext() if self.shards is None else self.shards.gathered():
            stopped = self.watch.measure(self.lm, self._whole.trained(), step, steps)
        if self.settings.report_to != "none":
            values = self.watch.records[-1]["values"]
            self.log({f"eval/{name}": value for name, value in values.items() if value is not None})
        return stopped

    def _over_processes(self, terms: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return terms
        values = torch.tensor(list(terms.values()), dtype=torch.float32, device=self.args.device)
        return dict(zip(terms, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _diverged(self, what: str) -> TrainingDivergedError:
        step = self.state.global_step
        self.trained()  # the caller gets the weights before the step
        kept = "nothing was written"
        if self._keeps_checkpoints:
            self._save_checkpoint(self.model, None)
            kept = f"the state before it is in {Path(self.args.output_dir) / f'checkpoint-{step}'}"
        return TrainingDivergedError(
            f"Training diverged at step {step + 1} of {self.state.max_steps}: {what}; {kept}. "
            "Lower learning_rate, or set max_forget_loss where the forget loss has no lower bound."
        )

    # --- checkpoints: the trained parameters as safetensors, never a pickle of settings ------------------------

    def trained(self) -> dict[str, nn.Parameter]:
        """Return what trains by name, with its present values, in one piece; every process must call it."""
        if self.shards is not None:
            self.shards.gather()
        return self._whole.trained()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained parameters: on the main process, with the help of all."""
        trained = self.trained()
        if not is_main():
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in trained.items()}, folder / WEIGHTS)
        if hasattr(self.objective, "state_dict"):
            write_json(folder / OBJECTIVE, self.objective.state_dict())
        if hasattr(self.objective, "tensor_state"):
            save_file(self.objective.tensor_state(), folder / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        stored = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        trained = self._whole.trained()
        if stored.keys() != trained.keys() or any(stored[n].shape != p.shape for n, p in trained.items()):
            raise ArtifactError(
                f"The checkpoint {resume_from_checkpoint} holds other parameters than this run trains; "
                "remove it or choose another output folder."
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(stored[name])
        if self.shards is not None:
            self.shards.scatter()
        if hasattr(self.objective, "load_state_dict"):
            self.objective.load_state_dict(read_json(Path(resume_from_checkpoint) / OBJECTIVE))
        if hasattr(self.objective, "load_tensor_state"):
            self.objective.load_tensor_state(load_file(Path(resume_from_checkpoint) / TENSORS))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.shards is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer)
        if is_main():
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.shards is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state, scheduler = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
            for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
        )
        self.optimizer.load_state_dict(optimizer_shards(self.optimizer, state))
        self.lr_scheduler.load_state_dict(scheduler)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """The model stays where the caller put it."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing reads it, and the estimate needs a model's own input names."""
        return 0
