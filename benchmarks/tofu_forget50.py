"""Forgetting half of TOFU: does NPO-RT keep the utility that gradient ascent and GradDiff lose?

A model trained from nothing on the CPU, so TOFU is sub-sampled: the last ``ROWS`` forget rows (those whose perturbed
answers TOFU ships are among them) and the first ``ROWS`` retain rows, half and half as in ``forget50``; every split is
tested on ``TESTED`` of its questions, evenly spread. Nothing was tuned on it. Two settings, each one
`unlearn compare`:

- ``published``: the papers' settings as they are (10 epochs, batches of 32, equal weights, no limit on the forget
  loss, NPO's beta 0.1) but for one learning rate for all, since theirs moves a small model by nothing: NPO's in the
  preset for small models, so that ascent alone might fare better with a lower one;
- ``scratch``: the preset for small models, tuned on the generated benchmark (seed 1), where ascent has a limit.

``python benchmarks/tofu_forget50.py --work-dir FOLDER`` resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, SHARED, millions

ROWS, TESTED = 400, 100
METHODS = ("ga", "graddiff", "npo", "npo-rt")
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {"preset": "paper", "learning_rate": 5e-4},
    "scratch": {},
}
CAPTIONS = {
    "published": "The papers' settings but for one learning rate for all, 5e-4 (NPO's in the preset for small models).",
    "scratch": "The preset for small models, tuned on the generated benchmark; ascent has a limit.",
}
EVAL_EVERY = 50
COLUMNS = {
    "model_utility": "model utility",
    "forget_quality": "forget quality p (D)",
    "forget_Q_A_Prob": "forget probability",
    "forget_Q_A_ROUGE": "forget ROUGE-L",
    "retain_Q_A_ROUGE": "retain ROUGE-L",
}
CURVES = ("model_utility", "forget_Q_A_Prob")


def benchmark() -> Any:
    """Return ``tofu:forget50`` cut to ``ROWS`` rows on each side."""
    from eval.data import load_benchmark

    whole = load_benchmark("tofu:forget50", data_dir=SHARED / "tofu", max_retain=ROWS)
    note = f"Sub-sampled: {ROWS} of {len(whole.forget)} forget rows are taught and forgotten, the last ones."
    return replace(whole, forget=whole.forget[-ROWS:], notes=(*whole.notes, note))


def tested(task: Any) -> Any:
    """Return the benchmark with at most ``TESTED`` questions of each split, evenly spread over it."""
    splits = {name: rows[:: max(1, len(rows) // TESTED)][:TESTED] for name, rows in task.splits.items()}
    return replace(task, splits=splits, notes=(*task.notes, f"Tested: {TESTED} questions of each split."))


def measured(setting: str, target: Any, oracle: Any, folder: Path) -> dict[str, Any]:
    """Run one comparison; return its final values and, of each method, its curves against steps."""
    from eval.artifacts import read_json
    from unlearn.comparison import CompareSettings, compare_prepared
    from unlearn.display import ProgressDisplay
    from unlearn.dynamics import read_dynamics

    settings = CompareSettings(
        methods=METHODS,
        overrides=dict.fromkeys(METHODS, SETTINGS[setting]),
        eval_every=EVAL_EVERY,
        max_new_tokens=40,
    )
    with ProgressDisplay() as progress:
        compare_prepared(target, oracle, tested(benchmark()), settings, folder, progress=progress)
    results = read_json(folder / "report.json")["results"]
    final = {name: {key: values[key] for key in COLUMNS if key in values} for name, values in results.items()}
    curves = {
        name: [
            {"step": record["step"], **{key: record["values"].get(key) for key in CURVES}}
            for record in read_dynamics(folder / name)
        ]
        for name in METHODS
    }
    return {"final": final, "curves": curves}


def verdict(final: dict[str, Any]) -> str:
    """Say what came out, whichever way it went."""
    utility = {name: final[name]["model_utility"]["value"] for name in ("target", *METHODS)}
    lost = {name: utility["target"] - utility[name] for name in METHODS}
    keeps = lost["npo-rt"] < min(lost["ga"], lost["graddiff"])
    return (
        f"Model utility, {utility['target']:.3f} before, is {utility['npo-rt']:.3f} after NPO-RT, "
        f"{utility['graddiff']:.3f} after GradDiff and {utility['ga']:.3f} after GA: "
        + ("NPO-RT keeps more than both." if keeps else "here NPO-RT does not keep more than both.")
    )


def _cell(result: dict[str, Any]) -> str:
    value = result.get("value")
    text = "–" if value is None else f"{value:.3g}"
    return f"{text} ({result['D']:.2f})" if "D" in result else text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "tofu_forget50")
    work = parser.parse_args().work_dir
    if not (SHARED / "tofu").is_dir():
        print("skipped: the shared data folder is not beside this checkout")
        return

    from eval.artifacts import environment, write_json, write_text
    from eval.models.prepare import prepare
    from eval.report.markdown import markdown_table

    task = benchmark()
    models = prepare("scratch:small", task, cache_dir=work / "models")
    size = millions(models.target.model)
    out: dict[str, Any] = {
        "millions": size,
        "notes": list(tested(task).notes),
        "environment": environment("cpu"),
    }
    parts = [
        f"# Forgetting half of TOFU: {size:.1f} M parameters trained from nothing",
        "\n".join(tested(task).notes),
    ]
    for setting in SETTINGS:
        found = measured(setting, models.target, models.oracle, work / setting)
        found["verdict"] = verdict(found["final"])
        out[setting] = {"overrides": SETTINGS[setting], **found}
        rows = [
            [name, *(_cell(values.get(key, {})) for key in COLUMNS)]
            for name, values in found["final"].items()
        ]
        parts += [
            f"## {setting}",
            CAPTIONS[setting],
            found["verdict"],
            markdown_table(["method", *COLUMNS.values()], rows),
        ]
        write_json(RESULTS / "tofu_forget50.json", out)
        write_text(RESULTS / "tofu_forget50.md", "\n\n".join(parts) + "\n")
        print(f"{setting}: {found['verdict']}", flush=True)


if __name__ == "__main__":
    main()
