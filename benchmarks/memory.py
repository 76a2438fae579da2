"""How much memory a piece of work takes, by the kernel's own high-water mark."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


def memory_rise_mb(work: Callable[[], object]) -> float:
    """Run ``work``; return how far resident memory rose above where it stood (the kernel's high-water mark), MiB.

    What was imported and allocated before does not count: warm the libraries up first.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew from here
    before = _status_mb("VmRSS")
    work()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
