"""GRUN beside its full and LoRA counterparts: the same forget loss as an edit, as an adapter and in the weights.

On the embedded benchmark and on TOFU's forget05, each with a model made from nothing: forget ROUGE-L, leak rate,
probability, forget quality, model utility, trained parameters, seconds. Seconds include the fit of the gates, which
methods of one comparison would share; here each fits its own.
``grun_comparison.json`` holds every figure, ``grun_comparison.md`` the tables and where the paper's claim holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, SHARED, millions, report

LOSSES = {"gd": "graddiff", "idk": "idk", "npo": "npo-rt"}
"""GRUN's loss to the fine-tuning method with the same terms."""
BENCHMARKS = ("world:forget05", "tofu:forget05")
MAX_RETAIN, NEW_TOKENS = 400, 64
METRICS = {
    "forget_Q_A_ROUGE": "forget ROUGE-L",
    "leak_rate": "leak rate",
    "forget_Q_A_Prob": "forget probability",
    "forget_quality": "forget quality p",
    "model_utility": "model utility",
}


def load(name: str) -> Any:
    from eval.data import load_benchmark

    options: dict[str, Any] = (
        {"data_dir": SHARED / "tofu", "max_retain": MAX_RETAIN} if name.startswith("tofu") else {}
    )
    return load_benchmark(name, **options)


def variants(losses: Sequence[str]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return (loss, where it acts, method, its settings) of every row."""
    return [
        (loss, where, method, settings)
        for loss in losses
        for where, method, settings in (
            ("edit (GRUN)", f"grun-{loss}", {}),
            ("LoRA", LOSSES[loss], {"parametrization": "lora"}),
            ("full", LOSSES[loss], {"parametrization": "full"}),
        )
    ]


def compare(
    name: str, losses: Sequence[str], work_dir: Path, models_dir: Path | None
) -> list[dict[str, Any]]:
    """Run every variant on one benchmark; what is finished in ``work_dir`` is read, not done again."""
    from eval.models.prepare import prepare
    from grun.gate_fit import forget_fits
    from unlearn.comparison import CompareSettings, compare_prepared

    benchmark = load(name)
    models = prepare("scratch:small", benchmark, cache_dir=models_dir)
    rows: dict[str, dict[str, Any]] = {}
    for loss, where, method, settings in variants(losses):
        forget_fits()
        folder = work_dir / name.replace(":", "-") / ("full" if where == "full" else "added")
        chosen = CompareSettings(methods=(method,), overrides={method: settings}, max_new_tokens=NEW_TOKENS)
        compared = compare_prepared(models.target, models.oracle, benchmark, chosen, folder)
        for run in compared.runs:
            result = compared.results[run.method]
            own = run.method == method
            rows[f"{loss} {where}" if own else run.method] = (
                {"benchmark": name, "millions": millions(models.target.model)}
                | {"loss": loss if own else "", "where": where if own else run.method}
                | {key: result.get(key, {}).get("value") for key in METRICS}
                | {"trained parameters": run.trainable_parameters if own else None}
                | {"seconds": run.seconds if own else None}
            )
        print(f"{name} {loss} {where}", flush=True)
    return list(rows.values())


def claims(rows: list[dict[str, Any]]) -> list[str]:
    """Say, for each loss, whether GRUN forgets like the oracle more than LoRA and full, keeps more, and is faster."""
    by_key = {(row["loss"], row["where"]): row for row in rows}
    lines = []
    for loss in dict.fromkeys(row["loss"] for row in rows if row["loss"]):
        ours = by_key[loss, "edit (GRUN)"]
        for where in ("LoRA", "full"):
            theirs = by_key[loss, where]
            quality, utility, seconds = (
                [row[key] for row in (ours, theirs)] for key in ("forget_quality", "model_utility", "seconds")
            )
            lines.append(
                f"{loss} against {where}: forget quality p {_more(*quality)}, utility {_more(*utility)}, "
                f"{seconds[0] / seconds[1]:.1f} times the seconds, "
                f"{ours['trained parameters'] / theirs['trained parameters']:.2f} times the trained parameters."
            )
    return lines


def _more(ours: float, theirs: float) -> str:
    word = "higher" if ours > theirs else "lower" if ours < theirs else "equal"
    return f"{word} ({ours:.2g}, {theirs:.2g})"


def write(found: dict[str, list[dict[str, Any]]], note: str) -> None:
    """Write the JSON and the Markdown of all benchmarks so far."""
    from eval.artifacts import write_text
    from eval.report.markdown import markdown_table

    stated = "scratch:small; each GRUN method fits its own gate, whose seconds count"
    report(
        "grun_comparison",
        [row for rows in found.values() for row in rows],
        note=f"{stated}; {note}" if note else stated,
    )
    columns = ["loss", "where", *METRICS, "trained parameters", "seconds"]
    parts = ["# GRUN beside LoRA and full fine-tuning with the same loss"]
    parts += [note] if note else []
    for name, rows in found.items():
        head = [METRICS.get(column, column) for column in columns]
        cells = [[_cell(row[column]) for column in columns] for row in rows]
        size = f"{rows[0]['millions']:.1f} M parameters"
        parts += [f"## {name}, {size}", markdown_table(head, cells)]
        parts.append("\n".join(f"- {line}" for line in claims(rows)))
    write_text(RESULTS / "grun_comparison.md", "\n\n".join(parts) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "grun_comparison")
    parser.add_argument("--models-dir", type=Path, help="in place of the user's cache")
    parser.add_argument("--benchmarks", default=",".join(BENCHMARKS), help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--losses", default=",".join(LOSSES), help=f"of {', '.join(LOSSES)}")
    parser.add_argument("--note", default="", help="what a reader must know of this run")
    given = parser.parse_args()
    found = {}
    for name in given.benchmarks.split(","):
        found[name] = compare(name, given.losses.split(","), given.work_dir, given.models_dir)
        write(found, given.note)


if __name__ == "__main__":
    main()
