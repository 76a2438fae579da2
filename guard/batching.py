"""Concurrent calls of one slow function are answered together: one of those who wait works for all of them."""

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
    turn: threading.Event = field(default_factory=threading.Event)
    """Set once the call is answered, or should answer the next batch itself."""


class Batcher(Generic[A, B]):
    """Joins the items of threads that call at the same time into one call.

    No thread of its own: while one batch is worked on, the next one gathers; a call waits for the batch that is being
    worked on and for its own, never for a later one.

    Args:
        work: Takes items and returns one result for each; never called by two threads at once.
    """

    def __init__(self, work: Callable[[list[A]], Sequence[B]]) -> None:
        self._work = work
        self._waiting: list[_Call[A, B]] = []
        self._is_working = False
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[A]) -> list[B]:
        """Return the results for ``items``; an error of the work is raised in every thread it concerns."""
        call: _Call[A, B] = _Call(items)
        with self._lock:
            self._waiting.append(call)
            is_first, self._is_working = not self._is_working, True
        if not is_first:
            call.turn.wait()
        if not call.is_done:
            self._answer_waiting()
        if call.error is not None:
            raise call.error
        return call.results

    def _answer_waiting(self) -> None:
        with self._lock:
            calls, self._waiting = self._waiting, []
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
            with self._lock:
                following = self._waiting[:1]
                self._is_working = bool(following)
            for call in calls:
                call.is_done = True
            for call in [*following, *calls]:
                call.turn.set()
