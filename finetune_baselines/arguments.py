"""From `TrainSettings` to transformers' own arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

from eval.errors import ConfigError
from eval.processes import num_processes
from finetune_baselines.training import TrainSettings

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["FSDP", "parts_of_a_step", "refuse_sharding", "training_arguments"]

FSDP = "ACCELERATE_USE_FSDP"
"""Variable by which the launcher says so."""
_SHARDING = {FSDP: "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def refuse_sharding() -> None:
    """Refuse a launch that would spread the weights over the processes in another way than FSDP version 2.

    Raises:
        ConfigError: If `accelerate` was told to use DeepSpeed or the first version of FSDP.
    """
    for variable, name in _SHARDING.items():
        is_second = variable == FSDP and os.environ.get("FSDP_VERSION") == "2"
        if os.environ.get(variable, "false").lower() in ("1", "true") and not is_second:
            raise ConfigError(
                f"Training with sharded weights ({name}) is not supported but for FSDP version 2 (accelerate launch "
                "--use_fsdp --fsdp_version 2); launch so, or with plain data parallelism (--multi_gpu)."
            )


def parts_of_a_step(settings: TrainSettings) -> int:
    """Return the number of micro-batches of a step over all processes.

    Raises:
        ConfigError: If the batch cannot be cut so.
    """
    processes = num_processes()
    parts = settings.accumulation * processes
    if settings.batch_size % parts:
        raise ConfigError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} processes with accumulation "
            f"{settings.accumulation}; choose a multiple of {parts}."
        )
    return parts


def training_arguments(
    lm: LanguageModel, settings: TrainSettings, folder: Path, *, seed: int, keeps_checkpoints: bool
) -> transformers.TrainingArguments:
    """Return the arguments of one pass over a schedule whose items are micro-batches.

    Raises:
        ConfigError: If ``report_to`` names nothing that transformers can report to, or what is not installed.
    """
    saves = keeps_checkpoints and settings.save_steps is not None
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,  # an item of the data set is a whole micro-batch
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        save_strategy="steps" if saves else "no",
        save_steps=settings.save_steps or 1,
        save_total_limit=2,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=_reporters(settings.report_to),
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


def _reporters(names: str) -> list[str]:
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    asked = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    unknown = [name for name in asked if name not in INTEGRATION_TO_CALLBACK and name != "all"]
    if unknown:
        raise ConfigError(
            f"report_to names {unknown[0]!r}; use none, all, or some of: {', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
        )
    installed = get_available_reporting_integrations()
    for name in asked:
        callback = INTEGRATION_TO_CALLBACK.get(name)
        is_theirs = callback is not None and callback.__module__.startswith("transformers.")
        if is_theirs and name not in installed:
            raise ConfigError(
                f"report_to names {name!r}, whose package is not installed; install it, or use "
                f"{', '.join(['none', *sorted(installed)])}."
            )
    return asked or ["none"]
