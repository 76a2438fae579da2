"""Several processes on one run (``accelerate launch``, ``torchrun``): who writes, who waits, what all agree on."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch

__all__ = ["from_main", "is_main", "join", "num_processes", "wait"]

T = TypeVar("T")


def num_processes() -> int:
    """Return how many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: torch.device) -> None:
    """Join the processes' group, if there are several; the trainer does so too."""
    if num_processes() > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")


def wait() -> None:
    """Wait until every process is here; nothing to do where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def from_main(value: T) -> T:
    """Return the main process's value on every process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    result: T = box[0]
    return result
