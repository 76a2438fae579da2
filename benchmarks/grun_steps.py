"""Optimizer steps and processor seconds until a GRUN edit forgets as much as the oracle, beside LoRA and full.

The same forget loss as an edit, as a LoRA and in all weights, each with its preset's settings, on the embedded
benchmark. Every few steps all forget questions are scored and answered. A method is there when its leak rate (or its
mean answer probability) is at most the oracle's. Seconds are what the process computes up to that step, measuring left
out; what comes before the first step (for GRUN the fit of its gate, which the losses of one model share) stands apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grun_comparison import LOSSES, variants
from harness import millions, report

BENCHMARK = "world:forget05"
LEVELS = {"leak_rate": "leak rate", "forget_Q_A_Prob": "forget probability"}
"""Measured value to its name here; each must come down to the oracle's."""


@dataclass
class Course:
    """One training: what was measured, at which step and after how many processor seconds of training."""

    asked: Any
    """A benchmark of the forget questions alone."""
    points: list[tuple[int, float, Mapping[str, float]]] = field(default_factory=list)
    """Step, processor seconds of training up to it, values."""
    seconds_before: float = 0.0
    """From the call to the first step."""
    _last: float = field(default_factory=time.process_time)

    def measure(self, lm: Any, step: int, folder: Path | None) -> Mapping[str, float]:
        """Measure the model in training and stop the clock meanwhile (`finetune_baselines.monitoring.Monitor`)."""
        passed = time.process_time() - self._last
        if not self.points:
            self.seconds_before, passed = passed, 0.0
        values = forgetting(lm, self.asked)
        trained = self.points[-1][1] if self.points else 0.0
        self.points.append((step, trained + passed, values))
        self._last = time.process_time()
        return values

    def first(self, key: str, level: float) -> tuple[int, float] | None:
        """Return the first measured step at which a value is at most ``level``, and its seconds."""
        return next(((step, s) for step, s, values in self.points if values[key] <= level), None)


def forgetting(lm: Any, asked: Any) -> dict[str, float]:
    """Score and answer the forget questions."""
    from eval.models import GenerationOptions
    from eval.runner import evaluate

    results = evaluate(lm, asked, options=GenerationOptions(max_new_tokens=64), gradnorm=False).results
    return {key: float(results[key].value) for key in LEVELS}


def train(
    target: Any, benchmark: Any, method: str, settings: Mapping[str, Any], every: int, seed: int
) -> Course:
    """Train one method and follow it."""
    from finetune_baselines.monitoring import Monitor, monitoring
    from grun.gate_fit import forget_fits
    from unlearn.methods import make_method

    forget_fits()
    course = Course(replace(benchmark, splits={"forget": benchmark.splits["forget"]}))
    with tempfile.TemporaryDirectory() as folder, monitoring(Monitor(measure=course.measure, every=every)):
        make_method(method, settings).unlearn(target, benchmark.data, Path(folder), seed=seed)
    return course


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", default=",".join(LOSSES), help=f"of {', '.join(LOSSES)}")
    parser.add_argument("--every", type=int, default=4, help="steps between two measurements (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from eval.data import load_benchmark
    from eval.models.prepare import prepare

    benchmark = load_benchmark(BENCHMARK)
    models = prepare("scratch:small", benchmark)
    asked = replace(benchmark, splits={"forget": benchmark.splits["forget"]})
    levels = forgetting(models.oracle, asked)
    rows: list[dict[str, Any]] = []
    for loss, where, method, settings in variants(given.losses.split(",")):
        course = train(models.target, benchmark, method, settings, given.every, given.seed)
        steps, trained, values = course.points[-1]
        row: dict[str, Any] = {"loss": loss, "where": where, "seconds before": course.seconds_before}
        row |= {"ms a step": 1000 * trained / steps, "steps in all": steps}
        for key, name in LEVELS.items():
            found = course.first(key, levels[key])
            row |= {
                f"steps to the oracle's {name}": found and found[0],
                f"seconds to it ({name})": found and found[1],
            }
            row[f"{name} at the end"] = values[key]
        rows.append(row)
        print(f"{loss} {where}", flush=True)
    known = ", ".join(f"{name} {levels[key]:.3g}" for key, name in LEVELS.items())
    size = f"{millions(models.target.model):.1f}M"
    where = f"{BENCHMARK}, scratch:small ({size}), measured every {given.every} steps"
    report("grun_steps", rows, note=f"{where}; oracle: {known}; processor seconds")


if __name__ == "__main__":
    main()
