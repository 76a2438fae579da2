"""LUME's own files (SemEval-2025 Task 4): a run's generations as the task's scorer reads them, and its results object.

A submission is a folder with ``forget.jsonl`` and ``retain.jsonl`` (a generation a row), ``mia_results/member.jsonl``
and ``nonmember.jsonl`` (mean loss of each document), ``mmlu_metrics.json`` and ``evaluation_results.jsonl`` (one
object: the scores). The official scorer keeps the rows as ``forget_0.csv`` and so on; these are written beside, so that
``--compute_metrics_only`` scores our generations, and are read where the JSON lines are missing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.artifacts import atomic_dir, read_json, write_json, write_text
from eval.errors import ArtifactError, ConfigError, DataError

__all__ = ["RESULTS_FILE", "is_submission", "read_submission", "submission_results", "write_submission"]

RESULTS_FILE = "evaluation_results.jsonl"
"""The scorer's output: one object."""
MMLU_FILE = "mmlu_metrics.json"
MIA_FOLDER = "mia_results"
MEMBERS = {"forget": "member", "holdout": "nonmember"}
"""Part of a membership entry to the scorer's file."""

Row = Mapping[str, Any]
Log = Mapping[str, Any]


def is_submission(directory: Path) -> bool:
    """Whether a folder holds generations of both parts, as JSON lines or as the official scorer's CSV."""
    from eval.data.lume import PARTS

    return all(_files(directory, part) for part in PARTS)


def _files(directory: Path, stem: str) -> list[Path]:
    lines = directory / f"{stem}.jsonl"
    return [lines] if lines.is_file() else sorted(directory.glob(f"{stem}_[0-9]*.csv"))


def write_submission(run: Path, out: Path) -> None:
    """Write one method's answers to LUME as a submission folder, atomically.

    Args:
        run: The folder of one evaluated method, with its log and ``samples.jsonl``.
        out: A new folder, or a submission that is replaced.

    Raises:
        DataError: If the run is not of LUME, or lacks one of the twelve groups of rows.
        ConfigError: If ``out`` is something else that exists.
    """
    from eval.report.open_unlearning import item_values, read_log, run_logs

    if out.exists() and not (out / RESULTS_FILE).is_file():
        raise ConfigError(
            f"{out} is there already and is no submission; give a folder that does not exist yet."
        )
    log = read_log(run)
    rows = _rows_of(next(iter(run_logs(run).values())).with_name("samples.jsonl"))
    results = submission_results(log)
    with atomic_dir(out) as folder:
        for part, given in rows.items():
            _write_rows(folder / part, given)
        attack = log.get("mia_loss", {})
        for part, name in MEMBERS.items():
            if part in attack:
                losses = enumerate(item_values(attack[part]))
                _write_rows(
                    folder / MIA_FOLDER / name, [{"id": f"{name}-{i}", "nll": nll} for i, nll in losses]
                )
        if "mmlu_average" in results:
            write_json(
                folder / MMLU_FILE,
                {"average_acc": results["mmlu_average"], "correct": item_values(log["mmlu_acc"])},
            )
        write_text(folder / RESULTS_FILE, json.dumps(results, allow_nan=False) + "\n")


def _rows_of(path: Path) -> dict[str, list[Row]]:
    from eval.data.jsonl import read_rows
    from eval.data.lume import PARTS
    from eval.metrics.composites import LUME_TERMS

    rows: dict[str, list[Row]] = {part: [] for part in PARTS}
    for _, sample in read_rows(path):
        if sample["split"] in LUME_TERMS:
            part, task, _ = sample["split"].split("_")
            rows[part].append(
                {
                    "id": sample["id"],
                    "task": task,
                    "input": sample["input"],
                    "expected_output": sample["ground_truth"],
                    "model_output": sample["generation"],
                }
            )
    return rows


def _write_rows(stem: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON lines and as the one CSV file that the official scorer's first process would write."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(stem.with_name(f"{stem.name}.jsonl"), "".join(f"{line}\n" for line in lines))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0] if rows else ())
    writer.writeheader()
    writer.writerows(rows)
    write_text(stem.with_name(f"{stem.name}_0.csv"), buffer.getvalue())


def submission_results(log: Log) -> dict[str, Any]:
    """Return the scorer's results object, recomputed from a log's per-item values.

    ``mia_loss_acc``, ``mia_final_score`` and ``mmlu_average`` are there where they were measured; without both
    ``aggregate-score`` is -1, as in the scorer.

    Raises:
        DataError: If the log lacks one of the twelve groups of rows.
    """
    from eval.data.lume import KINDS, PARTS, TASKS
    from eval.metrics.aggregate import aggregate, row_values
    from eval.metrics.composites import LUME_TERMS

    missing = [name for name in LUME_TERMS if "value_by_index" not in log.get(name, {})]
    if missing:
        raise DataError(
            f"The log has no {missing[0]}: a LUME submission needs all twelve groups of rows; evaluate the model "
            "on --benchmark lume."
        )
    values = {name: result.value for name, result in aggregate(log).items()}
    out: dict[str, Any] = {}
    for part in PARTS:
        overall = {
            f"overall-{kind}-score": float(
                np.mean(np.concatenate([row_values(name, log[name]) for name in _names(part, TASKS, kind)]))
            )
            for kind in KINDS.values()
        }
        tasks = {
            task: {f"{kind}-score": values[f"{part}_{task}_{kind}"] for kind in KINDS.values()}
            for task in TASKS
        }
        out[f"{part}-set"] = overall | tasks
    terms = {name: values[name] or 0.0 for name in LUME_TERMS}
    out["aggregated-terms"] = [1.0 - x if name.startswith("forget") else x for name, x in terms.items()]
    out["harmonic-mean-task-aggregate"] = values["lume_task_aggregate"]
    named = {"mia_loss_acc": "mia_loss", "mia_final_score": "lume_mia_score", "mmlu_average": "mmlu_acc"}
    out |= {key: values[name] for key, name in named.items() if values.get(name) is not None}
    final = values["lume_final_score"]
    return out | {"aggregate-score": -1 if final is None else final}


def _names(part: str, tasks: Iterable[str], kind: str) -> list[str]:
    return [f"{part}_{task}_{kind}" for task in tasks]


def read_submission(directory: Path) -> Log:
    """Read a submission folder, ours or the official scorer's, as a log: every score is computed anew.

    A row that several processes wrote (the scorer's padding) counts once. An empty generation is empty here; the
    scorer's CSV reader turns it into the word "nan", which changes a score only where that word is the answer.

    Raises:
        ArtifactError: If a row lacks a field, or is of no known task or kind.
    """
    from eval.data.lume import KINDS, PARTS, TASKS
    from eval.metrics.entries import attack_entry, entry
    from eval.metrics.rouge import exact_match, rouge_scores

    groups: dict[str, list[dict[str, Any]]] = {}
    for part in PARTS:
        for row in _read_rows(directory, part, ("id", "task", "expected_output", "model_output")):
            kind = str(row["id"])[:-1][-2:]
            if row["task"] not in TASKS or kind not in KINDS:
                raise ArtifactError(
                    f"{directory}: {part} row {row['id']!r} is of task {row['task']!r}; known are {', '.join(TASKS)} "
                    "and ids that end in sc or qa and a digit."
                )
            truth, said = str(row["expected_output"]), str(row["model_output"])
            texts = {"input": row.get("input", ""), "ground_truth": truth, "generation": said}
            scores = rouge_scores(truth, said).as_json()
            match = {"score": exact_match(truth, said)} if kind == "qa" else {}
            groups.setdefault(f"{part}_{row['task']}_{KINDS[kind]}", []).append(scores | texts | match)
    log: dict[str, Any] = {name: entry(rows) for name, rows in groups.items()}
    losses = {part: _read_rows(directory / MIA_FOLDER, name, ()) for part, name in MEMBERS.items()}
    if all(losses.values()):
        log["mia_loss"] = attack_entry(*([_loss(row) for row in rows] for rows in losses.values()))
    if (directory / MMLU_FILE).is_file():
        correct = read_json(directory / MMLU_FILE).get("correct", ())
        log["mmlu_acc"] = entry([{"score": score} for score in correct])
    return log


def _loss(row: Row) -> float | None:
    """Return a document's mean loss; a broken model's has none."""
    return None if row.get("nll") in (None, "") else float(row["nll"])


def _read_rows(directory: Path, stem: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    from eval.data.tables import read_table

    rows: dict[Any, dict[str, Any]] = {}
    for path in _files(directory, stem):
        for i, row in enumerate(read_table(path)):
            missing = [name for name in fields if row.get(name) is None]
            if missing:
                raise ArtifactError(
                    f"{path}, row {i + 1} has no {missing[0]!r}: it is no row of a LUME submission; give the folder "
                    "with the generations."
                )
            rows.setdefault(row.get("id", (path, i)), row)
    return list(rows.values())
