"""Evaluation logs in OpenUnlearning's layout: reading, checking and writing; TOFU's legacy logs are converted.

A log maps a metric to ``{"agg_value": x, "value_by_index": {"0": {...}, ...}}`` (membership metrics hold
``forget`` and ``holdout`` of that form). We add two optional fields that other readers ignore: ``reason``
(why a value is null or not comparable) and ``withheld`` (true where the value must not be shown at all).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eval.artifacts import read_json, write_json
from eval.errors import ArtifactError

__all__ = [
    "EVAL_SUFFIX",
    "LEGACY_FILES",
    "SUMMARY_SUFFIX",
    "EvalLog",
    "check_log",
    "find_log",
    "is_legacy",
    "item_values",
    "items",
    "legacy_to_open_unlearning",
    "read_log",
    "run_logs",
    "write_log",
]

EvalLog: TypeAlias = Mapping[str, Any]
"""A log in OpenUnlearning's layout: metric to ``agg_value`` and ``value_by_index``."""

EVAL_SUFFIX = "_EVAL.json"
"""Behind the evaluator's name (``TOFU``, ``MUSE``, ...): the per-item log."""
SUMMARY_SUFFIX = "_SUMMARY.json"
"""Likewise: the flat log of aggregates."""
_GENERIC, _OTHER_LAYOUT = f"TOFU{EVAL_SUFFIX}", f"LMEval{EVAL_SUFFIX}"

LEGACY_FILES = {
    "retain": "eval_log.json",
    "ra": "eval_real_author_wo_options.json",
    "wf": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
"""Split to its part of TOFU's aggregated log."""


def items(entry: Any) -> list[Mapping[str, Any]]:
    """Return the per-item entries of a metric in row order; empty where it has none."""
    values = entry.get("value_by_index") if isinstance(entry, Mapping) else None
    if not isinstance(values, Mapping):
        return []
    return [values[key] for key in sorted(values, key=int)]


def item_values(entry: Any, field: str = "score") -> list[float | None]:
    """Return one field of every item in row order; ``None`` where an item has no value."""
    return [None if item.get(field) is None else float(item[field]) for item in items(entry)]


def check_log(content: Any, source: str) -> EvalLog:
    """Return ``content`` if it is an evaluation log whose every number is finite.

    Args:
        content: Parsed JSON.
        source: How error messages name it.

    Raises:
        ArtifactError: If it has another layout or holds a value that is not finite.
    """
    log: EvalLog = content if isinstance(content, Mapping) else {}
    known = any(
        isinstance(entry, Mapping) and ("agg_value" in entry or "value_by_index" in entry)
        for entry in log.values()
    )
    if not known:
        raise ArtifactError(
            f"{source} is no evaluation log: it is neither OpenUnlearning's *_EVAL.json (metrics with "
            "value_by_index) nor TOFU's aggregated log (eval_log.json, ...); give the per-example log, not a summary."
        )
    for metric, entry in log.items():
        if not isinstance(entry, Mapping):
            raise ArtifactError(f"{source}: metric {metric!r} is no JSON object; write the log anew.")
        for part in (
            entry,
            *(entry[name] for name in ("forget", "holdout") if isinstance(entry.get(name), Mapping)),
        ):
            _check_items(part, metric, source)
    return log


def _check_items(entry: Mapping[str, Any], metric: str, source: str) -> None:
    values = entry.get("value_by_index")
    if values is None:
        return
    if not isinstance(values, Mapping) or not all(
        str(key).isdecimal() and isinstance(item, Mapping) for key, item in values.items()
    ):
        raise ArtifactError(
            f"{source}: value_by_index of {metric!r} must map row numbers to objects; write the log anew."
        )
    for key, item in values.items():
        for field, number in _numbers(item):
            if not math.isfinite(number):
                raise ArtifactError(
                    f"{source}: {metric}, row {key}, field {field!r} is {number}; a log with values that are not "
                    "finite has no aggregates: evaluate the model again."
                )


def _numbers(item: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for field, value in item.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                yield field, number


def is_legacy(log: Any) -> bool:
    """Return whether parsed JSON is TOFU's ``eval_log_aggregated.json``."""
    return isinstance(log, Mapping) and any(name in log for name in LEGACY_FILES.values())


def legacy_to_open_unlearning(log: Mapping[str, Any], source: str) -> EvalLog:
    """Convert TOFU's legacy aggregated log to OpenUnlearning's layout.

    Probabilities come from ``avg_gt_loss``, truth ratios from ``avg_paraphrased_loss`` (on real authors and
    world facts a second forward of the gold answer whose bf16 noise differs), and neither ratio has an
    epsilon, as in TOFU's own aggregation.

    Raises:
        ArtifactError: If a field is missing, of the wrong kind or not finite.
    """
    out: dict[str, Any] = {}
    for split, name in LEGACY_FILES.items():
        part = log.get(name)
        if part is None:
            continue
        try:
            out |= _legacy_split(split, part)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{source}: {name} is damaged or of another layout ({type(error).__name__}: {error}); "
                "give TOFU's eval_log_aggregated.json as it was written."
            ) from None
    return check_log(out, source)


def _legacy_split(split: str, part: Mapping[str, Any]) -> dict[str, Any]:
    from eval.metrics.probability import normalised_probability
    from eval.metrics.truth_ratio import log_truth_ratio

    rows = sorted(part["avg_gt_loss"], key=int)
    gold = {row: float(part["avg_gt_loss"][row]) for row in rows}
    correct = {row: float(part["avg_paraphrased_loss"][row]) for row in rows}
    wrong = {row: [float(loss) for loss in part["average_perturb_loss"][row]] for row in rows}
    ratio_name = "forget_truth_ratio" if split == "forget" else f"{split}_Truth_Ratio"
    out: dict[str, Any] = {
        f"{split}_Q_A_Prob": {r: {"prob": math.exp(-gold[r]), "avg_loss": gold[r]} for r in rows},
        f"{split}_Q_A_PERT_Prob": {
            r: {"prob": [math.exp(-loss) for loss in wrong[r]], "avg_loss": wrong[r]} for r in rows
        },
        f"{split}_Q_A_ROUGE": {
            r: {
                "rouge1_recall": float(part["rouge1_recall"][r]),
                "rougeL_recall": float(part["rougeL_recall"][r]),
                **dict(zip(("input", "generation", "ground_truth"), part["generated_text"][r], strict=True)),
            }
            for r in rows
        },
        ratio_name: {r: {"score": math.exp(log_truth_ratio(correct[r], wrong[r]))} for r in rows},
    }
    if split in ("ra", "wf"):
        out[f"{split}_Q_A_Prob_normalised"] = {
            r: {
                "prob": normalised_probability(math.exp(-gold[r]), np.exp(np.negative(wrong[r])), epsilon=0.0)
            }
            for r in rows
        }
    else:
        out[f"{split}_Q_A_PARA_Prob"] = {
            r: {"prob": math.exp(-correct[r]), "avg_loss": correct[r]} for r in rows
        }
    return {name: {"value_by_index": values} for name, values in out.items()}


def find_log(directory: Path) -> Path | None:
    """Return a folder's per-item log, whichever benchmark it is of; ``None`` where there is none.

    Earlier versions wrote ``TOFU_EVAL.json`` for every benchmark, so a more telling name comes first.
    OpenUnlearning's ``LMEval_EVAL.json`` holds lm-eval's samples and is passed over.
    """
    found = [path for path in directory.glob(f"*{EVAL_SUFFIX}") if path.name != _OTHER_LAYOUT]
    return min(found, key=lambda path: (path.name == _GENERIC, path.name), default=None)


def run_logs(directory: Path) -> dict[str, Path]:
    """Return the logs of a run folder by method name; a single model's log, or LUME submission, is named ``model``.

    Raises:
        ArtifactError: If the folder is missing or holds none.
    """
    if not directory.is_dir():
        raise ArtifactError(f"There is no run folder {directory}; check the path.")
    from eval.report.lume_submission import is_submission

    if is_submission(directory):
        return {"model": directory}
    for single in (directory, directory / "eval"):
        if (found := find_log(single)) is not None:
            return {"model": found}
    folders = sorted(directory.glob("*/eval"))
    logs = {folder.parent.name: path for folder in folders if (path := find_log(folder)) is not None}
    if not logs:
        raise ArtifactError(
            f"{directory} holds no evaluation log (*{EVAL_SUFFIX}); give a finished run's folder or the log itself."
        )
    return logs


def read_log(path: Path | str, *, prefer: tuple[str, ...] = ("model",)) -> EvalLog:
    """Read an evaluation log: OpenUnlearning's, TOFU's legacy form, a LUME submission, or one of our run folders.

    Args:
        path: A ``*_EVAL.json``, an ``eval_log_aggregated.json``, our ``report.json``, or a folder.
        prefer: Which method's log to take from a run of several, first match wins.

    Raises:
        ArtifactError: If there is none, it is damaged, or a run of several holds none of ``prefer``.
    """
    from eval.report.lume_submission import read_submission

    path = Path(path)
    if path.name == "report.json":
        path = path.parent
    if path.is_dir():
        logs = run_logs(path)
        name = next(iter(logs)) if len(logs) == 1 else next((name for name in prefer if name in logs), None)
        if name is None:
            raise ArtifactError(
                f"{path} holds the logs of several models ({', '.join(logs)}); name one, such as "
                f"{next(iter(logs.values()))}."
            )
        path = logs[name]
        if path.is_dir():
            return check_log(read_submission(path), str(path))
    content = read_json(path)
    if is_legacy(content):
        return legacy_to_open_unlearning(content, str(path))
    return check_log(content, str(path))


def write_log(
    log: EvalLog, summary: Mapping[str, float | None], directory: Path, evaluator: str = "TOFU"
) -> Path:
    """Write ``<evaluator>_EVAL.json`` and ``<evaluator>_SUMMARY.json`` atomically and return the first's path.

    Args:
        log: Keys are sorted, as OpenUnlearning does.
        summary: Aggregates; null ones are left out, as OpenUnlearning does.
        directory: Made where missing.
        evaluator: Of the benchmark (`eval.data.Benchmark.evaluator`).
    """
    shown = {name: value for name, value in sorted(summary.items()) if value is not None}
    path = directory / f"{evaluator}{EVAL_SUFFIX}"
    write_json(path, dict(sorted(log.items())), indent=4)
    write_json(directory / f"{evaluator}{SUMMARY_SUFFIX}", shown, indent=4)
    return path
