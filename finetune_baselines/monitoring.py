"""Evaluation during training: values along the steps, early stop, and the weights of the best step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.processes import from_main, is_main

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["DYNAMICS", "Monitor", "Watch", "current_monitor", "monitoring"]

DYNAMICS = "dynamics.jsonl"
"""One line an evaluation: step, steps, seconds and values."""
BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What to measure while a run trains, and what to do about it.

    Raises:
        ConfigError: If a number is out of range, or ``patience`` is set without a ``criterion``.
    """

    measure: Callable[[LanguageModel, int, Path | None], Mapping[str, float | None]]
    """Called with the model in training, the number of steps done and the run's folder, on every process."""
    every: int
    """Optimizer steps between two evaluations; the start and the end are measured too."""
    criterion: Callable[[Mapping[str, float | None]], float | None] | str | None = None
    """What makes a step the best, computed from its values on held-out rows: a function whose largest value wins, or
    the name of a value (``-name``: the smallest wins). The best step's weights are what the run returns; ``None``:
    the last step's are."""
    patience: int | None = None
    """End the run after so many evaluations without a better one; ``None``: never."""

    def __post_init__(self) -> None:
        if self.every < 1 or (self.patience is not None and self.patience < 1):
            raise ConfigError(
                f"A run is evaluated every {self.every} steps with patience {self.patience}; both must be at least 1."
            )
        if self.patience is not None and self.criterion is None:
            raise ConfigError(
                "Early stop needs a criterion: the name of a measured value, or a function of them."
            )

    def merit(self, values: Mapping[str, float | None]) -> float | None:
        """Return how good the values are, larger being better; ``None`` where they do not say.

        Raises:
            ConfigError: If the criterion names a value that was not measured.
        """
        if self.criterion is None:
            return None
        if callable(self.criterion):
            return self.criterion(values)
        name = self.criterion.removeprefix("-")
        if name not in values:
            raise ConfigError(f"The criterion {name!r} was not measured; measured are: {', '.join(values)}.")
        value = values[name]
        return None if value is None else value * (-1 if self.criterion.startswith("-") else 1)


_MONITOR: ContextVar[Monitor | None] = ContextVar("monitor", default=None)


@contextmanager
def monitoring(monitor: Monitor | None) -> Iterator[None]:
    """Watch every run of `run_training` inside the block, whichever method starts it."""
    token = _MONITOR.set(monitor)
    try:
        yield
    finally:
        _MONITOR.reset(token)


def current_monitor() -> Monitor | None:
    """Return the monitor of the enclosing `monitoring` block."""
    return _MONITOR.get()


@dataclass
class Watch:
    """A monitor at work on one run; a resumed run reads back what was measured before."""

    monitor: Monitor
    folder: Path | None
    """Where `DYNAMICS` and the best weights go; ``None``: they stay in memory."""
    records: list[dict[str, Any]] = field(default_factory=list)
    _best: dict[str, Tensor] | None = None

    def resume(self, steps: int) -> None:
        """Take up what was measured up to a step; later lines go, for they will be measured again."""
        if self.folder is None:
            return
        path = self.folder / DYNAMICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and steps else []
        self.records = [record for record in map(json.loads, lines) if record["step"] <= steps]
        if is_main():
            path.write_text("".join(json.dumps(r) + "\n" for r in self.records), encoding="utf-8")

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to measure after ``step`` steps of ``steps``."""
        known = bool(self.records) and self.records[-1]["step"] >= step
        return not known and (step % self.monitor.every == 0 or step == steps)

    def measure(
        self, lm: LanguageModel, trained: Mapping[str, nn.Parameter], step: int, steps: int
    ) -> str | None:
        """Measure, record, and keep the weights of the best step.

        Returns:
            A sentence that ends the run, or ``None``.
        """
        start = time.perf_counter()
        values = from_main(dict(self.monitor.measure(lm, step, self.folder)))
        merit = self.monitor.merit(values)
        before = [record["merit"] for record in self.records if record["merit"] is not None]
        record = {
            "step": step,
            "steps": steps,
            "seconds": round(time.perf_counter() - start, 3),
            "values": values,
            "merit": merit,
        }
        self.records.append(record)
        if self.folder is not None and is_main():
            with (self.folder / DYNAMICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if merit is not None and merit > max(before, default=-float("inf")):
            self._keep(trained)
        return self._verdict()

    def _verdict(self) -> str | None:
        patience, best = self.monitor.patience, self.best_step
        if patience is None or best is None:
            return None
        since = sum(record["step"] > best for record in self.records)
        if since < patience:
            return None
        return f"The criterion has not improved in {since} evaluations; its best value was at step {best}."

    @property
    def best_step(self) -> int | None:
        """Step of the best value so far, the first of equals; ``None`` without a criterion."""
        judged = [record for record in self.records if record["merit"] is not None]
        return max(judged, key=lambda record: record["merit"])["step"] if judged else None

    def _keep(self, trained: Mapping[str, nn.Parameter]) -> None:
        copy = {name: p.detach().cpu().contiguous().clone() for name, p in trained.items()}
        if self.folder is None:
            self._best = copy
        elif is_main():
            path = self.folder / "checkpoints" / BEST
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(copy, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)

    def restore(self, trained: Mapping[str, nn.Parameter]) -> int | None:
        """Put the best step's weights back, if there is a criterion; return that step."""
        best = self.best_step
        if best is None or best == self.records[-1]["step"]:
            return best
        kept = self._best
        if kept is None and self.folder is not None:
            kept = load_file(self.folder / "checkpoints" / BEST)
        assert kept is not None
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(kept[name])
        return best
