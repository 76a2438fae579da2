"""`AuditLog`: one JSON line for each decision of the filter, without the text unless it is asked for.

A line says what was done, never what was hoped for: a check that raised is logged as ``failed``, one that was
left out as ``skipped``; only a prompt that was judged and not flagged is logged as ``passed``.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from eval.errors import ConfigError
from eval.types import Message
from guard.gate import Decision

__all__ = ["ACTIONS", "Action", "AuditLog", "AuditRecord", "elapsed_ms", "read_audit"]

Action = Literal["passed", "noted", "restricted", "refused", "skipped", "failed"]
"""What happened to a prompt: judged and not flagged; flagged, but the policy is ``monitor``; answered without the
phrases; answered with a refusal; not judged at all; the check or the generation raised."""

ACTIONS: tuple[str, ...] = get_args(Action)
"""Every action a record may name."""
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """What is logged of one prompt."""

    action: Action
    policy: str
    request_id: str = ""
    """Given by the caller; empty: a new random one."""
    decision: Decision | None = None
    """``None`` only where there is none: ``skipped`` or ``failed``."""
    masked_steps: int = 0
    """Decoding steps at which the filter took away the first choice."""
    check_ms: float = 0.0
    """Milliseconds of the gate, shared evenly by the prompts of a batch."""
    latency_ms: float = 0.0
    """Milliseconds from the check to the answer."""
    reason: str = ""
    """Why a prompt was not judged or not answered: a class of error or a sentence without any of the text."""

    def __post_init__(self) -> None:
        if self.decision is None and self.action not in ("skipped", "failed"):
            raise ConfigError(
                f"An audit record without a decision cannot say {self.action!r}; it is 'skipped' or 'failed'."
            )
        if self.decision is not None and self.action == "passed":
            if self.decision.flagged:
                raise ConfigError("A flagged prompt cannot be logged as 'passed'; say what was done with it.")
            if self.decision.failure:
                raise ConfigError(
                    "A prompt that was not judged cannot be logged as 'passed'; it is 'skipped'."
                )


class AuditLog:
    """Appends records to a JSON-lines file; safe for threads and for processes that share the file.

    Each record is one write of one whole line at the file's end, so lines never mix.

    Args:
        path: The file; its folder is made if it is missing.
        with_text: Also log the user turns and the answer. Off by default: the log would otherwise hold what was
            to be forgotten.

    Raises:
        ConfigError: If the file cannot be written.
    """

    def __init__(self, path: Path | str, *, with_text: bool = False) -> None:
        self.path = Path(path)
        self.with_text = with_text
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a"):
                pass
        except OSError as error:
            raise ConfigError(
                f"The audit log {self.path} cannot be written ({error.strerror}); name a writable file."
            ) from None

    def record(
        self, entry: AuditRecord, *, messages: Sequence[Message] = (), answer: str = ""
    ) -> dict[str, Any]:
        """Append one record and return it as it was written.

        Args:
            entry: What happened.
            messages: The conversation; written only ``with_text``.
            answer: What was answered; written only ``with_text``.
        """
        decision = entry.decision
        if decision is not None and decision.failure:
            decision = None  # its score is none
        line: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": entry.request_id or uuid.uuid4().hex,
            "policy": entry.policy,
            "action": entry.action,
            "flagged": None if decision is None else decision.flagged,
            "score": None if decision is None else decision.score,
            "threshold": None if decision is None else decision.threshold,
            "entries": [] if decision is None else list(decision.entries),
            "masked_steps": entry.masked_steps,
            "check_ms": round(entry.check_ms, 3),
            "latency_ms": round(entry.latency_ms, 3),
        }
        if decision is not None and decision.is_allowed:
            line["allowed"] = True
        if entry.reason:
            line["reason"] = entry.reason
        if self.with_text:
            line["user"] = [m.content for m in messages if m.is_prompt]
            line["answer"] = answer
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                written = os.write(file, data)
            finally:
                os.close(file)
        if written < len(data):
            raise OSError(f"The audit log {self.path} took {written} of {len(data)} bytes; is the disk full?")
        return line


def read_audit(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a log.

    Raises:
        ConfigError: If a line is no record, with its number.
    """
    records: list[dict[str, Any]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise ConfigError(
                f"Line {number} of {path} is no JSON; the log was cut or edited: mend or remove that line."
            ) from None
    return records


def elapsed_ms(since: float) -> float:
    """Return the milliseconds since ``time.perf_counter()`` gave ``since``."""
    return 1000 * (time.perf_counter() - since)
