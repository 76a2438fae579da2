"""Does gradient ascent collapse, and NPO slower (arXiv:2404.05868)? Utility and forgetting at every few steps.

GA, NPO and NPO with a retain term unlearn the embedded benchmark's forget set with the same learning rate, batches and
number of steps, far more of them than forgetting takes; GA runs without a limit. Each is measured along the way as
``unlearn compare --eval-every`` does. A run has collapsed where less than half of the target's utility is left; the
note of ``unlearning_dynamics.json`` says at which step each did, ``unlearning_dynamics.png`` shows the curves.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, millions, report

BENCHMARK = "world:forget05"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "ga": {"max_forget_loss": None},
    "npo": {"beta": 0.1},
    "npo-rt": {"beta": 0.1, "retain_weight": 1.0, "retain_per_forget": 1},
}
"""Methods with what their papers set where the preset of small models differs."""
VALUES = {
    "model utility": "model_utility",
    "forget: probability": "forget_Q_A_Prob",
    "forget: ROUGE-L": "forget_Q_A_ROUGE",
    "forget: truth ratio": "forget_truth_ratio",
}
COLLAPSED = 0.5
"""Share of the target's utility below which a run has collapsed."""


def run(rate: float, epochs: int, every: int, seed: int) -> tuple[list[dict[str, Any]], Any]:
    """Return one row for each method and step, and the target."""
    import finetune_baselines
    from eval.data import load_benchmark
    from eval.models.prepare import prepare
    from unlearn.dynamics import dynamics_monitor, read_dynamics

    benchmark = load_benchmark(BENCHMARK)
    lm = prepare("scratch:small", benchmark).target
    rows: list[dict[str, Any]] = []
    for method, own in METHODS.items():
        with tempfile.TemporaryDirectory() as folder:
            finetune_baselines.train(
                lm,
                method,
                forget=benchmark.forget,
                retain=benchmark.retain,
                output_dir=folder,
                seed=seed,
                overrides={**own, "learning_rate": rate, "epochs": epochs},
                monitor=dynamics_monitor(benchmark, every),
            )
            records = read_dynamics(Path(folder))
        for record in records:
            values = {name: record["values"][key] for name, key in VALUES.items()}
            rows.append({"method": method, "step": record["step"], **values})
    return rows, lm


def collapse(rows: Sequence[Mapping[str, Any]], method: str) -> int | None:
    """Return the first step from which on less than `COLLAPSED` of the start's utility is left to the end."""
    curve = [(row["step"], row["model utility"]) for row in rows if row["method"] == method]
    bound = COLLAPSED * curve[0][1]
    fallen = None
    for step, utility in curve:
        if utility >= bound:
            fallen = None
        elif fallen is None:
            fallen = step
    return fallen


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in one sentence what became of each run."""
    at = {method: collapse(rows, method) for method in dict.fromkeys(row["method"] for row in rows)}
    end = {row["method"]: row["model utility"] for row in rows}
    return "; ".join(
        f"{method} " + ("keeps its utility" if step is None else f"collapses at step {step}")
        + f" (at the end {end[method]:.3f})"
        for method, step in at.items()
    )  # fmt: skip


def plot(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw utility and forgetting against steps, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ("model utility", "forget: probability", "forget: ROUGE-L")
    figure, panels = plt.subplots(1, len(names), figsize=(11, 3.6), sharex=True, layout="constrained")
    for axes, name in zip(panels, names, strict=True):
        for method in METHODS:
            points = [(row["step"], row[name]) for row in rows if row["method"] == method]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=method)
        axes.set(xlabel="optimizer steps", ylim=(-0.02, 1.02), title=name)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(RESULTS / "unlearning_dynamics.png", dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=int, default=14, help="steps between two evaluations (default: 14)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows, lm = run(given.learning_rate, given.epochs, given.every, given.seed)
    where = f"{BENCHMARK}, scratch:small ({millions(lm.model):.1f}M), learning rate {given.learning_rate:g}"
    report("unlearning_dynamics", rows, note=f"{where}: {verdict(rows)}")
    plot(rows, where)


if __name__ == "__main__":
    main()
