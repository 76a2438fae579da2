"""`Deadline`: a guard that decides in time, or fails closed.

A check costs one pass of a sentence encoder. Where that hangs, slows down or dies, a request must neither wait for
ever nor slip past: it is refused (or what the operator chose), and the audit log says that it was not judged.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import copy_context
from typing import Literal, Protocol, get_args

from eval.errors import ConfigError, UnlearnError
from eval.types import Prompt
from guard.encoder import SentenceEncoder
from guard.gate import Decision

__all__ = ["CheckError", "Deadline", "Judge", "OnFailure"]

OnFailure = Literal["refuse", "raise", "pass"]
"""What becomes of a prompt that could not be judged: it is refused, `CheckError` is raised, or it is answered
unjudged (and logged as ``skipped``)."""


class CheckError(UnlearnError, TimeoutError):
    """A prompt could not be judged in time, or the check failed."""


class Judge(Protocol):
    """Whatever decides about prompts: a `Guard`, or one with a `Deadline`."""

    @property
    def refusals(self) -> Sequence[str]:
        """What is said instead of an answer; empty: the package's own."""
        ...

    @property
    def encoder(self) -> SentenceEncoder:
        """The sentence encoder."""
        ...

    def check_many(self, prompts: Sequence[Prompt]) -> list[Decision]:
        """Judge prompts together."""
        ...


class Deadline:
    """Judges prompts within a time limit; give it to `guard.generate`, `stream`, `wrap` or `GuardedModel` in the
    guard's place.

    A check that is late goes on in its thread, and its decision is kept for the next time the prompt comes. At
    most ``max_waiting`` late checks are left running: with more, prompts are taken for unjudged at once.

    Args:
        guard: What decides.
        milliseconds: Time for the check of one call, all its prompts together; above 0.
        on_failure: What becomes of a prompt that could not be judged.
        max_waiting: Late checks that may be running; at least 1.

    Raises:
        ConfigError: If a value is not allowed.
    """

    def __init__(
        self,
        guard: Judge,
        milliseconds: float,
        *,
        on_failure: OnFailure = "refuse",
        max_waiting: int = 64,
    ) -> None:
        if not milliseconds > 0 or max_waiting < 1:
            raise ConfigError(
                f"milliseconds is {milliseconds} and max_waiting {max_waiting}; the one must be above 0, the other "
                "at least 1."
            )
        if on_failure not in get_args(OnFailure):
            raise ConfigError(
                f"Unknown on_failure {on_failure!r}; use one of {', '.join(get_args(OnFailure))}."
            )
        self.guard = guard
        self.milliseconds = milliseconds
        self.on_failure: OnFailure = on_failure
        self._places = threading.BoundedSemaphore(max_waiting)

    @property
    def refusals(self) -> Sequence[str]:
        """The guard's."""
        return self.guard.refusals

    @property
    def encoder(self) -> SentenceEncoder:
        """The guard's."""
        return self.guard.encoder

    def check(self, prompt: Prompt) -> Decision:
        """Judge one prompt in time."""
        return self.check_many([prompt])[0]

    def check_many(self, prompts: Sequence[Prompt]) -> list[Decision]:
        """Judge prompts in time; where that fails, every decision says why in ``failure``.

        Raises:
            CheckError: If it fails and ``on_failure`` is ``raise``.
        """
        found: list[list[Decision]] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                found.append(self.guard.check_many(prompts))
            except BaseException as error:
                errors.append(error)
            finally:
                self._places.release()

        if not self._places.acquire(blocking=False):
            return self._failed(prompts, "too many checks are late already")
        # a thread of its own, not a pool's: the interpreter must be able to end while an encoder hangs
        thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        thread.start()
        thread.join(self.milliseconds / 1000)
        if found:
            return found[0]
        if errors:
            return self._failed(prompts, type(errors[0]).__name__)
        return self._failed(prompts, f"no decision within {self.milliseconds:g} ms")

    def _failed(self, prompts: Sequence[Prompt], reason: str) -> list[Decision]:
        if self.on_failure == "raise":
            raise CheckError(f"The guard could not judge the prompt ({reason}); nothing was generated.")
        is_closed = self.on_failure == "refuse"
        decision = Decision(flagged=is_closed, score=float(is_closed), threshold=1.0, failure=reason)
        return [decision] * len(prompts)
