"""Concurrent calls of one slow function are answered together: whoever comes first works for all who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Batcher"]

A = TypeVar("A")
B = TypeVar("B")


@dataclass
class _Call(Generic[A, B]):
    items: Sequence[A]
    results: list[B] = field(default_factory=list)
    error: BaseException | None = None
    is_done: bool = False


class Batcher(Generic[A, B]):
    """Joins the items of threads that call at the same time into one call.

    No thread of its own: while one batch is worked on, the next one gathers.

    Args:
        work: Takes items and returns one result for each; never called by two threads at once.
    """

    def __init__(self, work: Callable[[list[A]], Sequence[B]]) -> None:
        self._work = work
        self._waiting: list[_Call[A, B]] = []
        self._list_lock = threading.Lock()
        self._work_lock = threading.Lock()

    def __call__(self, items: Sequence[A]) -> list[B]:
        """Return the results for ``items``; an error of the work is raised in every thread it concerns."""
        call: _Call[A, B] = _Call(items)
        with self._list_lock:
            self._waiting.append(call)
        with self._work_lock:
            if not call.is_done:
                with self._list_lock:
                    calls, self._waiting = self._waiting, []
                self._answer(calls)
        if call.error is not None:
            raise call.error
        return call.results

    def _answer(self, calls: Sequence[_Call[A, B]]) -> None:
        try:
            results = iter(self._work([item for call in calls for item in call.items]))
            for call in calls:
                call.results = [next(results) for _ in call.items]
        except BaseException as error:
            for call in calls:
                call.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for call in calls:
                call.is_done = True
