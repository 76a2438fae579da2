"""Time and memory of one stage."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time
from types import TracebackType

__all__ = ["Measure"]

INTERVAL = 0.02
"""Seconds between two looks at the process's memory."""


class Measure:
    """Context manager: wall time, and how far memory rose above where it stood.

    On CUDA the allocator's own peak is read; on a CPU the process's own resident memory is sampled, so a peak
    shorter than 20 ms may be missed. What was freed before goes back to the system first: left with the process, it
    would serve what comes and hide its cost.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_memory_mb = 0.0
        """Rise over the start, MiB."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Measure:
        import psutil
        import torch

        self._process = psutil.Process()
        _settle()
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._base = float(torch.cuda.memory_allocated())
        else:
            self._base = self._own()
        self._peak = self._base
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        if self._cuda:
            import torch

            current = float(torch.cuda.max_memory_allocated())
        else:
            current = self._own()
        self._peak = max(self._peak, current)

    def _own(self) -> float:
        """Return the process's resident memory, in bytes, without pages of files, such as the code of libraries."""
        memory = self._process.memory_info()
        return float(memory.rss - getattr(memory, "shared", 0))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self._stop.set()
        self._thread.join()
        self._look()
        self.peak_memory_mb = (self._peak - self._base) / 2**20


def _settle() -> None:
    """Free what nobody refers to any more, and give it back to the system where the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
