"""Several seeds of one method become one row: means with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unlearn.runs import Finished

__all__ = ["averaged", "stage_name"]


def stage_name(method: str, seed: int, first: int) -> str:
    """Return the folder of one seed of a method: the first seed has the method's own."""
    return method if seed == first else f"{method}@{seed}"


def averaged(by_seed: Mapping[int, Finished]) -> Finished:
    """Combine the runs of one method.

    Values are means over seeds (of p-values the median: a mean of p-values means nothing), with ``sd`` (sample
    standard deviation) and ``by_seed`` beside them; an interval is the mean of the seeds' intervals, so it shows
    the noise of the questions, and ``sd`` that of training. A metric that one seed lacks is null.
    """
    runs = list(by_seed.values())
    if len(runs) == 1:
        return runs[0]
    seeds = ", ".join(map(str, by_seed))
    notes = dict.fromkeys(note for run in runs for note in run.info.notes)
    info = replace(
        runs[0].info,
        seconds=_mean([run.info.seconds for run in runs]),
        eval_seconds=_mean([run.info.eval_seconds for run in runs]),
        peak_memory_mb=max((run.info.peak_memory_mb or 0.0 for run in runs), default=0.0) or None,
        notes=[*notes, f"Means of {len(runs)} seeds ({seeds})."],
    )
    names = list(dict.fromkeys(name for run in runs for name in run.results))
    return Finished(info, {name: _combined(name, by_seed) for name in names})


def _combined(name: str, by_seed: Mapping[int, Finished]) -> dict[str, Any]:
    results = [run.results.get(name, {"value": None}) for run in by_seed.values()]
    values = [result["value"] for result in results]
    combined = dict(results[0])
    if any(value is None for value in values):
        missing = next(result for result in results if result["value"] is None)
        return combined | {"value": None, "ci": None, "reason": missing.get("reason", "a seed has no value")}
    middle = statistics.median if name == "forget_quality" else statistics.fmean
    intervals = [result.get("ci") for result in results]
    combined |= {
        "value": middle(values),
        "ci": [statistics.fmean(ends) for ends in zip(*intervals, strict=True)] if all(intervals) else None,
        "sd": statistics.stdev(values),
        "by_seed": {str(seed): value for seed, value in zip(by_seed, values, strict=True)},
    }
    if "D" in combined:
        combined["D"] = statistics.median(result["D"] for result in results)
    return combined


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None
