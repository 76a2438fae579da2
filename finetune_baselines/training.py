"""The training interface: settings, objectives, and `run_training`, which every method that trains goes through.

Nothing here imports transformers; the trainer itself does, when `run_training` is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

from eval.errors import ConfigError, UnlearnError
from eval.types import Progress
from finetune_baselines.batches import PairBatch, Row

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel
    from finetune_baselines.monitoring import Monitor
    from finetune_baselines.sampling import Sampling

__all__ = [
    "Objective",
    "TrainResult",
    "TrainRows",
    "TrainSettings",
    "TrainingDivergedError",
    "Unit",
    "run_training",
]

Unit: TypeAlias = str
"""What a term is a mean over: ``<kind>_rows`` or ``<kind>_tokens``, with a kind of answer (``gold``, ``refusal``,
...), ``forget`` (all of these), ``retain`` or ``all``; with accumulation a micro-batch counts by its share of it."""


class TrainingDivergedError(UnlearnError, RuntimeError):
    """A loss or a gradient became infinite or NaN; the state before that step was kept."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run optimises; what it optimises is the objective's.

    Raises:
        ConfigError: If a value is out of range.
    """

    learning_rate: float = 1e-5
    """Peak learning rate of AdamW."""
    epochs: int = 10
    """Passes over the forget rows; over the rows of each phase where a run has several."""
    batch_size: int = 32
    """Forget rows of one optimizer step, over all processes (partners come on top); single rows where the sampling
    counts those."""
    accumulation: int = 1
    """Micro-batches a step is cut into; the result equals that of one big batch."""
    retain_per_forget: int = 1
    """Retain partners of each forget row."""
    weight_decay: float = 0.01
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, in epochs."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What the learning rate does after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: never."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    bf16: bool = False
    """Run forward and backward in bf16; weights, gradients and optimizer states keep their precision."""
    save_steps: int | None = None
    """Write a resumable checkpoint every so many steps; ``None``: none."""
    report_to: str = "none"
    """Where losses and measured values also go, as in Hugging Face: tensorboard, wandb, ..., joined by commas."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "epochs", "batch_size", "accumulation", "retain_per_forget")
        for name in (*positive, *(() if self.save_steps is None else ("save_steps",))):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("weight_decay", "warmup_epochs", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or above.")
        if self.batch_size % self.accumulation:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulation} equal micro-batches; "
                "choose a divisor for accumulation."
            )
        if self.schedule not in ("linear", "cosine", "constant"):
            raise ConfigError(f"Unknown schedule {self.schedule!r}; use linear, cosine or constant.")


class Objective(Protocol):
    """What is minimised: named, already weighted terms whose sum is the loss.

    Optional attributes: ``units``, a mapping from a term's name to the `Unit` it is a mean over (default
    ``forget_rows``); ``should_stop(terms) -> str | None``, asked after each step with that step's terms (floats,
    the same on all processes): a sentence ends the run; ``state_dict()`` and ``load_state_dict(state)``, where it
    keeps numbers of its own between steps (as JSON in checkpoints), ``tensor_state()`` and
    ``load_tensor_state(state)``, where it keeps tensors; ``after_update(step)``, called after each update of the
    weights (step from 0) while the gradients are still there; ``perturbation``, a
    `finetune_baselines.perturbation.Perturbation`: one side's gradient is then taken at perturbed weights.
    """

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the terms, each of shape ``()``, with gradients.

        Args:
            lm: The model in training.
            batch: Forget rows and retain rows.
            module: What to give to ``lm.answer_logits(batch.both, module=module)``: ``lm.model``, or the
                data-parallel wrapper that sees every forward.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TrainRows:
    """The rows a run trains on, encoded once."""

    forget: Sequence[Sequence[Row]]
    """For each forget example its alternatives (one gold answer, several refusals, or both): each epoch takes one
    of every kind, chosen by (seed, epoch, index)."""
    retain: Sequence[Row] = ()
    draws: Mapping[str, int] = field(default_factory=dict)
    """Kinds of which an epoch takes more than one, if there are so many."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run did."""

    steps: int
    seconds: float
    history: tuple[Mapping[str, Any], ...] = field(repr=False)
    """One entry a step, as in ``metrics.jsonl``: step, epoch, learning_rate, grad_norm, loss, terms."""
    stopped: str | None = None
    """Why the run ended before its last step."""
    best_step: int | None = None
    """The step whose weights came back, where a monitor's criterion chose one."""


def run_training(
    lm: LanguageModel,
    objective: Objective,
    rows: TrainRows,
    settings: TrainSettings,
    *,
    sampling: Sampling | None = None,
    trainable: nn.Module | None = None,
    output_dir: Path | None = None,
    seed: int = 0,
    resume: bool | Path = False,
    progress: Progress | None = None,
    monitor: Monitor | None = None,
) -> TrainResult:
    """Minimise ``objective`` over the rows, changing ``trainable`` in place and nothing else.

    Under ``accelerate launch`` or ``torchrun`` every process calls it alike; only the main one writes.

    Global seeds, log levels, training flags, ``requires_grad`` flags and the model's configuration are as before
    when it returns. Data order depends on ``seed`` alone.

    Args:
        lm: The model to run; its module is changed in place unless ``trainable`` is given.
        objective: See `Objective`.
        rows: What to train on.
        settings: How.
        sampling: In which order; default: random pairs.
        trainable: The module whose parameters are trained (an intervention); all other parameters of
            ``lm.model`` are frozen while it runs. ``None``: those parameters of ``lm.model`` that require gradients.
        output_dir: Where ``metrics.jsonl`` and ``checkpoints/`` go; ``None``: nothing is written.
        seed: Of data order, partners and dropout.
        resume: Go on from the newest checkpoint in ``output_dir``, if there is one, or from the one given.
        progress: Told ``("training", step, steps)``.
        monitor: What to measure along the way; default: that of the enclosing `monitoring.monitoring` block.

    Raises:
        TrainingDivergedError: If a term or a gradient is not finite; names it. The parameters are those before
            that step, and are written to ``checkpoints/`` where there is an ``output_dir``.
        ConfigError: If nothing is trainable.
    """
    from finetune_baselines.monitoring import current_monitor
    from finetune_baselines.run import train
    from finetune_baselines.sampling import Pairs

    return train(
        lm,
        objective,
        rows,
        settings,
        sampling=sampling or Pairs(),
        trainable=trainable,
        output_dir=output_dir,
        seed=seed,
        resume=resume,
        progress=progress,
        monitor=monitor or current_monitor(),
    )
