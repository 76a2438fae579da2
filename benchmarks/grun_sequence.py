"""Ten requests in sequence: one person each, forgotten by one small edit after another, each measured and one removed.

The model is the embedded benchmark's target (``world:forget05``, ten people). After each request the whole stack is
evaluated: the people who asked so far, those who did not yet, and model utility. At the end the first request is
removed again. ``grun_sequence.json`` holds every figure, ``grun_sequence.png`` and ``.svg`` the curves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from harness import RESULTS, millions, report

BENCHMARK = "world:forget05"


def measure(lm: Any, benchmark: Any, done: Sequence[str]) -> dict[str, Any]:
    """Evaluate, and split the forget rows by whether their person has asked."""
    import statistics

    from eval.runner import evaluate

    found = evaluate(lm, benchmark, gradnorm=False)
    by_row = found.log["forget_Q_A_ROUGE"]["value_by_index"]
    leaks = found.log["leak_rate"]["value_by_index"]
    sides: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for i, row in enumerate(benchmark.splits["forget"]):
        key = str(i)
        sides[row.subject in done].append((by_row[key]["rougeL_recall"], float(leaks[key]["score"])))

    def mean(side: bool, which: int) -> float | None:
        return statistics.fmean(pair[which] for pair in sides[side]) if sides[side] else None

    return {
        "requests": len(done),
        "asked: ROUGE-L": mean(True, 0),
        "asked: leak rate": mean(True, 1),
        "not asked: ROUGE-L": mean(False, 0),
        "retain: ROUGE-L": found.results["retain_Q_A_ROUGE"].value,
        "model utility": found.results["model_utility"].value,
    }


def run(loss: str, num_requests: int) -> tuple[list[dict[str, Any]], Any]:
    """Return one row for each stage, and the base."""
    from eval.data import load_benchmark
    from eval.models.prepare import prepare
    from grun.stack import EditStack

    benchmark = load_benchmark(BENCHMARK)
    lm = prepare("scratch:small", benchmark).target
    people = list(dict.fromkeys(row.subject for row in benchmark.forget))[:num_requests]
    stack = EditStack(lm)
    rows = [{"stage": "base", **measure(stack, benchmark, [])}]
    data = benchmark.data
    for i, person in enumerate(people):
        earlier = [row.replace(answer=None) for row in benchmark.forget if row.subject in people[:i]]
        start = time.perf_counter()
        stack.train(
            person,
            forget=[row for row in benchmark.forget if row.subject == person],
            retain=data.retain,
            background=[*data.background, *earlier],
            refusals=data.refusals,
            loss=loss,
            seed=i,
        )
        seconds = time.perf_counter() - start
        rows.append({"stage": f"+ request {i + 1}", **measure(stack, benchmark, people[: i + 1])})
        rows[-1] |= {"training seconds": seconds, "parameters": stack.trainable_parameters}
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    stack.remove(people[0])
    rows.append({"stage": "- request 1", **measure(stack, benchmark, people[1:])})
    return rows, lm


def plot(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draw forget and utility after each request."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sequence = rows[:-1]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, colour, style in (
        ("model utility", "tab:blue", "-"),
        ("retain: ROUGE-L", "tab:cyan", "-"),
        ("not asked: ROUGE-L", "tab:green", "--"),
        ("asked: ROUGE-L", "tab:red", "-"),
        ("asked: leak rate", "tab:orange", ":"),
    ):
        points = [(row["requests"], row[key]) for row in sequence if row[key] is not None]
        axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", markersize=4, label=key)
    axes.set(xlabel="requests so far", xticks=range(len(sequence)), ylim=(-0.02, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center right", fontsize=8)
    for suffix in ("png", "svg"):
        figure.savefig(
            RESULTS / f"grun_sequence.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else {}
        )
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="idk", help="forget loss of every request (default: idk)")
    parser.add_argument("--requests", type=int, default=10, help="how many people ask (default: 10)")
    given = parser.parse_args()
    rows, lm = run(given.loss, given.requests)
    report(
        "grun_sequence",
        rows,
        note=f"{BENCHMARK}, scratch:small ({millions(lm.model):.1f}M), grun-{given.loss} with its defaults",
    )
    plot(
        rows,
        f"GRUN requests in sequence: grun-{given.loss}, {BENCHMARK}, {millions(lm.model):.1f}M parameters",
    )


if __name__ == "__main__":
    main()
