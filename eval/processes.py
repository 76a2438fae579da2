"""Several processes on one run (``accelerate launch``, ``torchrun``): who writes, who waits, what all agree on."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

__all__ = ["from_main", "is_main", "join", "num_processes", "rank", "spread", "wait"]

T = TypeVar("T")
R = TypeVar("R")


def num_processes() -> int:
    """Return how many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def join(device: torch.device) -> None:
    """Join the processes' group, if there are several, and leave it when this process ends."""
    if num_processes() == 1:
        return
    if not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")
    _leave_at_exit()


@cache
def _leave_at_exit() -> None:
    atexit.register(_leave)


def _leave() -> None:
    """End gloo's threads: a process that ends with them running may abort. NCCL's may wait for others, so they stay."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


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


def spread(
    items: Sequence[T], work: Callable[[list[T]], list[R]], *, together: Callable[[T], Hashable] | None = None
) -> list[R]:
    """Do a share of the work on each process; every process gets all results, in the order of ``items``.

    Every process must call it, with the same items.

    Args:
        items: What is to be done.
        work: Turns items into as many results.
        together: Items for which it returns the same value go to one process (answers that share a prompt).
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return work(list(items))
    own, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    groups: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(i if together is None else together(item), []).append(i)
    mine = [i for turn, group in enumerate(groups.values()) if turn % size == own for i in group]
    done = work([items[i] for i in mine])
    shares: list[Any] = [None] * size
    torch.distributed.all_gather_object(shares, list(zip(mine, done, strict=True)))
    found: dict[int, R] = {i: result for share in shares for i, result in share}
    return [found[i] for i in range(len(items))]
