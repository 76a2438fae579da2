"""Plain answer cross-entropy training: scratch models, `eval.models.prepare` and the relearning attack."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from eval.data.collate import Encoded
from eval.errors import ConfigError, DataError
from eval.models.language_model import LanguageModel
from eval.types import Example, Progress

__all__ = ["FinetuneSettings", "TokenBatches", "finetune"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How to train; the defaults suit a pretrained model of about 1 B parameters."""

    epochs: float = 5.0
    """Passes over the rows."""
    batch_tokens: int = 2048
    """Padded tokens in one step on one device; at least one row, however long."""
    lr: float = 1e-5
    """Peak learning rate: of AdamW's parameters."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``muon``: orthogonalised updates for matrices, AdamW for the rest; for models trained from nothing."""
    matrix_lr: float = 0.02
    """Peak learning rate of the matrices under ``muon``."""
    weight_decay: float = 0.0
    """Under ``adamw``."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; it falls linearly to zero in the rest."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this Euclidean norm; 0 leaves them."""
    parametrization: Literal["full", "lora"] = "full"
    """``lora`` trains a PEFT adapter on every linear layer and merges it at the end."""
    lora_rank: int = 16
    """Rank of the adapter; its alpha is twice that."""
    checkpoint_steps: int = 0
    """Save a checkpoint every so many steps into ``output_dir``; 0 never does."""
    seed: int = 0
    """Of the order of the rows and of the adapter's first weights."""

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "batch_tokens": self.batch_tokens, "lr": self.lr}
        for name, value in {**positive, "matrix_lr": self.matrix_lr, "lora_rank": self.lora_rank}.items():
            if value <= 0:
                raise ConfigError(f"Setting {name} of fine-tuning is {value}; give a number above 0.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"Setting warmup of fine-tuning is {self.warmup}; give a share from 0 up to 1.")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigError(f"Unknown optimizer {self.optimizer!r}; use adamw or muon.")
        if self.parametrization not in ("full", "lora"):
            raise ConfigError(
                f"Unknown parametrization {self.parametrization!r} of fine-tuning; use full or lora."
            )


class TokenBatches(Sampler[list[int]]):
    """Batches of rows of like length, at most ``batch_tokens`` padded tokens each, in another order each epoch.

    The number of batches is the same in every epoch; which rows meet, and in what order the batches come,
    depends on seed and epoch alone.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Upper limit of rows times the longest row.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_tokens: int, *, seed: int = 0) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.epoch = 0
        self._cuts = self._cut(np.sort(self.lengths))

    def _cut(self, ascending: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
        cuts, start = [], 0
        for i, length in enumerate(ascending.tolist()):
            if i > start and length * (i + 1 - start) > self.batch_tokens:
                cuts.append((start, i))
                start = i
        return [*cuts, (start, len(ascending))]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the training loop calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._cuts)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(len(self.lengths))
        ordered = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        for i in rng.permutation(len(self._cuts)):
            start, stop = self._cuts[i]
            yield ordered[start:stop].tolist()


def finetune(
    lm: LanguageModel,
    examples: Sequence[Example],
    settings: FinetuneSettings | None = None,
    *,
    output_dir: Path | str | None = None,
    progress: Progress | None = None,
    label: str = "training",
) -> LanguageModel:
    """Train ``lm`` on the examples' answers, in place.

    Args:
        lm: Its weights change; an adapter, if asked for, is merged before this returns.
        examples: Rows with a prompt and an answer.
        settings: How.
        output_dir: Where checkpoints go when ``settings.checkpoint_steps`` is above 0. If it holds one of an
            earlier run that was interrupted, training goes on from there and ends with the same weights;
            checkpoints are removed at the end.
        progress: Told the number of steps.
        label: What ``progress`` is told.

    Returns:
        ``lm`` itself.

    Raises:
        DataError: If there are no examples, or one has no answer.
    """
    settings = settings or FinetuneSettings()
    if not examples:
        raise DataError("There is nothing to train on; give at least one example.")
    for example in examples:
        if example.answer is None:
            raise DataError(f"Example {example.id!r} has no answer to train on; remove it or give it one.")
    rows = lm.encode(examples, [example.answer or "" for example in examples])
    with _unchanged_random_state(lm), TemporaryDirectory() as temporary:
        directory = Path(output_dir or temporary)
        module = _with_adapter(lm, settings)
        trainer = _trainer(lm, module, rows, settings, directory, progress, label)
        trainer.train(resume_from_checkpoint=_last_complete_checkpoint(directory))
        if settings.parametrization == "lora":
            lm.model = module.merge_and_unload()
        for checkpoint in directory.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
    lm.model.eval()
    lm.model.zero_grad(set_to_none=True)
    lm.forget_identity()
    return lm


def _with_adapter(lm: LanguageModel, settings: FinetuneSettings) -> Any:
    if settings.parametrization == "full":
        return lm.model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    rank = settings.lora_rank
    return get_peft_model(lm.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


@contextmanager
def _unchanged_random_state(lm: LanguageModel) -> Iterator[None]:
    """Let the Trainer seed what it likes; the caller's random state comes back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [lm.device] if lm.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _last_complete_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint whose last file was written; half-written ones are removed."""
    complete: list[tuple[int, Path]] = []
    for path in directory.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():
            complete.append((int(path.name.rpartition("-")[2]), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return str(max(complete)[1]) if complete else None


def _trainer(
    lm: LanguageModel,
    module: Any,
    rows: Sequence[Encoded],
    settings: FinetuneSettings,
    directory: Path,
    progress: Progress | None,
    label: str,
) -> Any:
    """A `transformers.Trainer` whose loss is `answer_logits`' cross-entropy and which prints nothing."""
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

    batches = TokenBatches([len(row) for row in rows], settings.batch_tokens, seed=settings.seed)

    class AnswerTrainer(Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            def collate(members: list[Encoded]) -> dict[str, Any]:
                return {"batch": lm.collate(members)}

            dataset: Any = rows
            return self.accelerator.prepare(DataLoader(dataset, batch_sampler=batches, collate_fn=collate))

        def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Tensor:
            batch = inputs["batch"]
            logits = lm.answer_logits(batch, module=model)
            return torch.nn.functional.cross_entropy(logits.float(), batch.targets.to(logits.device))

        def create_optimizer(self, model: Any = None) -> Any:
            if settings.optimizer == "muon":
                from eval.models.muon import MuonAdamW

                self.optimizer = MuonAdamW(module, lr=settings.lr, matrix_lr=settings.matrix_lr)
                return self.optimizer
            return super().create_optimizer(model) if model is not None else super().create_optimizer()

    class Report(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(label, state.global_step, state.max_steps)

    steps = max(1, round(settings.epochs * len(batches)))
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        warmup_steps=round(settings.warmup * steps),
        lr_scheduler_type="linear",
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        seed=settings.seed,
        use_cpu=lm.device.type == "cpu",
        save_strategy="steps" if settings.checkpoint_steps else "no",
        save_steps=settings.checkpoint_steps or 500,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = AnswerTrainer(model=module, args=arguments, callbacks=[Report()])
    for chatty in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(chatty)
    return trainer
