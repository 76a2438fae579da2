"""``--eval-every N``: what a method does to forgetting and to utility, step by step, on a sample of the questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.data.pairing import deal
from eval.errors import ConfigError
from eval.metrics.utility import harmonic_mean
from eval.processes import is_main
from finetune_baselines.monitoring import DYNAMICS, Monitor

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models.language_model import LanguageModel

__all__ = [
    "NEW_TOKENS",
    "ROWS",
    "SAMPLE",
    "dynamics_monitor",
    "read_dynamics",
    "sampled",
    "seconds_measuring",
]

ROWS = 24
"""Questions of each split that are asked at every evaluation: always the same ones."""
NEW_TOKENS = 64
"""Tokens generated for each of them."""
SAMPLE = (
    f"Measured on at most {ROWS} questions of each split, always the same ones, with answers of at most {NEW_TOKENS} "
    "tokens; the levels of target and oracle are those of the whole evaluation."
)
"""How the curves were measured, for captions."""
_LEFT_OUT = ("holdout", "neighbours")


def sampled(benchmark: Benchmark, rows: int = ROWS) -> Benchmark:
    """Return the benchmark with at most ``rows`` questions of each split; splits behind no drawn value are left out."""
    splits = {
        name: tuple(questions[i] for i in sorted(deal(len(questions), "dynamics", name)[:rows]))
        for name, questions in benchmark.splits.items()
        if name not in _LEFT_OUT
    }
    return replace(benchmark, splits=splits)


def balance(values: Mapping[str, float | None]) -> float | None:
    """Return the harmonic mean of model utility and of what is forgotten (1 - forget ROUGE-L); LUME's own on LUME."""
    if "lume_task_aggregate" in values:
        return values["lume_task_aggregate"]
    utility, rouge = values.get("model_utility"), values.get("forget_Q_A_ROUGE")
    return None if utility is None or rouge is None else harmonic_mean([utility, 1 - rouge])


def dynamics_monitor(
    benchmark: Benchmark, every: int | None, *, best_by: str | None = None, patience: int | None = None
) -> Monitor | None:
    """Return what evaluates a run every so many steps; ``None``: nothing.

    Every process asks the same questions; the main one writes each evaluation's log to ``dynamics/step-N``, so that
    every value can be recomputed.

    Args:
        benchmark: Its sample (`sampled`) is asked.
        every: Optimizer steps between two evaluations.
        best_by: Return the weights of the step where this value is largest (``-name``: smallest; ``balance``:
            `balance`); chosen on test questions, so the final numbers are optimistic.
        patience: End the run after so many evaluations without a better one.

    Raises:
        ConfigError: If the last two are given without ``every``, or ``patience`` without ``best_by``.
    """
    if every is None:
        if best_by is not None or patience is not None:
            raise ConfigError("Choosing the best step needs evaluations in between; give --eval-every N.")
        return None
    from eval.models import GenerationOptions
    from eval.runner import evaluate

    asked = sampled(benchmark)
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)

    def measure(lm: LanguageModel, step: int, folder: Path | None) -> Mapping[str, float | None]:
        where = folder / "dynamics" / f"step-{step:06d}" if folder is not None and is_main() else None
        results = evaluate(lm, asked, options=options, output_dir=where, gradnorm=False).results
        return {name: result.value for name, result in results.items() if result.value is not None}

    criterion = balance if best_by == "balance" else best_by
    return Monitor(measure=measure, every=every, criterion=criterion, patience=patience)


def read_dynamics(folder: Path) -> list[dict[str, Any]]:
    """Return what was measured while a method trained, in the order of its steps; empty where nothing was."""
    path = folder / DYNAMICS
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def seconds_measuring(folder: Path) -> float:
    """Return how long the evaluations in between took, which is no cost of the method."""
    return float(sum(record["seconds"] for record in read_dynamics(folder)))
