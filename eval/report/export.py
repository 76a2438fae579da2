"""Per-example values in the formats others read: CSV, Parquet, TOFU's legacy aggregated log, a LUME submission.

The tables are long: one row for each (method, metric, example, field), so that a spreadsheet or a data frame can
group, filter and recompute every aggregate.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.artifacts import write_bytes, write_json, write_text
from eval.errors import ConfigError, DataError
from eval.report.lume_submission import write_submission
from eval.report.open_unlearning import LEGACY_FILES, EvalLog, item_values, items, read_log, run_logs

__all__ = ["COLUMNS", "export", "per_example_rows", "tofu_legacy_log"]

COLUMNS = ("method", "metric", "part", "index", "field", "number", "text")
"""Of the tables; ``part`` is ``forget`` or ``holdout`` for membership metrics, else empty; a list is one row an item,
its fields numbered (``prob.0``)."""


def per_example_rows(run: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each value of each example of every method of a run folder, or of one log."""
    logs = run_logs(run) if run.is_dir() else {run.stem: run}
    for method, path in logs.items():
        for metric, entry in read_log(path).items():
            parts = {"": entry} | {name: entry[name] for name in ("forget", "holdout") if name in entry}
            for part, values in parts.items():
                for index, item in enumerate(items(values)):
                    for field, value in _flat(item):
                        is_number = isinstance(value, (int, float))
                        yield {
                            "method": method,
                            "metric": metric,
                            "part": part,
                            "index": index,
                            "field": field,
                            "number": float(value) if is_number else None,
                            "text": None if is_number or value is None else str(value),
                        }


def _flat(item: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field, value in item.items():
        if isinstance(value, list):
            yield from ((f"{field}.{i}", part) for i, part in enumerate(value))
        else:
            yield field, value


def export(run: Path, out: Path) -> None:
    """Write a run's per-example values to ``out``, atomically.

    Args:
        run: A run folder, a method's folder in it, or a log.
        out: ``.csv``, ``.parquet``, ``.json`` for TOFU's legacy aggregated log, or a folder (no ending) for a LUME
            submission; the last two are of one method.

    Raises:
        ConfigError: If the ending is another, or Parquet is asked for without `datasets`.
        ArtifactError: If ``run`` holds no log.
    """
    if out.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS)
        writer.writeheader()
        writer.writerows(per_example_rows(run))
        write_text(out, buffer.getvalue())
    elif out.suffix == ".parquet":
        try:
            from datasets import Dataset, Features, Value
        except ImportError:
            raise ConfigError(
                "Parquet needs the package `datasets` (pip install 'unlearn-toolkit[hub]'); or export to .csv."
            ) from None
        kinds = dict.fromkeys(COLUMNS, "string") | {"index": "int64", "number": "float64"}
        features = Features({name: Value(kind) for name, kind in kinds.items()})
        content = io.BytesIO()
        Dataset.from_list(list(per_example_rows(run)), features=features).to_parquet(content)
        write_bytes(out, content.getvalue())
    elif out.suffix == ".json":
        write_json(out, tofu_legacy_log(read_log(run)))
    elif not out.suffix:
        write_submission(run, out)
    else:
        raise ConfigError(
            f"{out} cannot be exported to: use .csv, .parquet, .json (TOFU's legacy aggregated log), or a folder "
            "(a LUME submission)."
        )


def tofu_legacy_log(log: EvalLog) -> dict[str, Any]:
    """Return a log as TOFU's ``eval_log_aggregated.json`` (arXiv:2401.06121), whose readers recompute everything.

    Fields that need token counts (``gt_loss``, ``num_token_gt``, ...) are left out: no aggregate uses them.

    Raises:
        DataError: If the log lacks what the four files hold.
    """
    out: dict[str, Any] = {}
    for split, name in LEGACY_FILES.items():
        gold = item_values(log.get(f"{split}_Q_A_Prob"), "avg_loss")
        wrong = [item.get("avg_loss") for item in items(log.get(f"{split}_Q_A_PERT_Prob"))]
        texts = items(log.get(f"{split}_Q_A_ROUGE"))
        paraphrased = item_values(log.get(f"{split}_Q_A_PARA_Prob"), "avg_loss") or gold
        if not gold or not len(gold) == len(wrong) == len(texts) == len(paraphrased):
            raise DataError(
                f"The log has no complete {split!r} split (probabilities, wrong answers, ROUGE), which TOFU's legacy "
                "log needs; export to .csv instead."
            )
        columns: dict[str, list[Any]] = {
            "avg_gt_loss": gold,
            "avg_paraphrased_loss": paraphrased,
            "average_perturb_loss": wrong,
            "generated_text": [[t.get("input", ""), t["generation"], t["ground_truth"]] for t in texts],
            "rouge1_recall": [t["rouge1_recall"] for t in texts],
            "rougeL_recall": [t["rougeL_recall"] for t in texts],
        }
        out[name] = {
            field: {str(i): value for i, value in enumerate(values)} for field, values in columns.items()
        }
    return out
