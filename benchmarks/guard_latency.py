"""What a check costs over one bare encode, alone and with 16 threads at once; every prompt is new.

Rounds alternate (encode alone, check alone, 16 threads), so that another load on the machine meets all three. The
ratios are taken within a round; the row shows their median and the worst round.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import report

THREADS = 16
ROUNDS = 7
ALONE = 32
"""Prompts of a round, one after the other."""
EACH = 6
"""Prompts of each thread in a round."""


def main() -> None:
    import torch

    from eval.data import load_benchmark
    from guard import Guard

    benchmark = load_benchmark("world:forget05")
    g = Guard.build(forget=benchmark.forget, retain=benchmark.retain)
    questions = [e.question for e in benchmark.retain]
    asked = (f"{questions[i % len(questions)]} ({i})" for i in range(10**6))
    g.check(next(asked))

    def timed(work: Callable[[str], object], prompt: str) -> float:
        start = time.perf_counter()
        work(prompt)
        return time.perf_counter() - start

    def crowd() -> list[float]:
        barrier, seconds = threading.Barrier(THREADS), []

        def ask(prompts: list[str]) -> None:
            for prompt in prompts:
                barrier.wait()
                seconds.append(timed(g.check, prompt))

        feeds = [[next(asked) for _ in range(EACH)] for _ in range(THREADS)]
        threads = [threading.Thread(target=ask, args=(feed,)) for feed in feeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seconds

    kinds: dict[str, Callable[[], list[float]]] = {
        "one bare encode": lambda: [
            timed(lambda p: g.encoder.encode([p]), next(asked)) for _ in range(ALONE)
        ],
        "check": lambda: [timed(g.check, next(asked)) for _ in range(ALONE)],
        f"check, {THREADS} threads": crowd,
    }
    rounds: list[dict[str, tuple[float, float]]] = []
    for _ in range(ROUNDS):
        found = {name: measure() for name, measure in kinds.items()}
        rounds.append({n: (statistics.median(s), float(np.quantile(s, 0.95))) for n, s in found.items()})
    rows: list[dict[str, Any]] = []
    for name in kinds:
        row: dict[str, Any] = {
            "what": name,
            "prompts": ROUNDS * (EACH * THREADS if THREADS > 1 and "," in name else ALONE),
        }
        for place, quantile in enumerate(("p50", "p95")):
            ratios = [r[name][place] / r["one bare encode"][place] for r in rounds]
            row |= {
                f"{quantile} ms": 1e3 * statistics.median(r[name][place] for r in rounds),
                f"{quantile} ratio": statistics.median(ratios),
                f"{quantile} ratio, worst round": max(ratios),
            }
        rows.append(row)
    note = f"{ROUNDS} rounds, {torch.get_num_threads()} threads of the library"
    report("guard_latency", rows, note=note)


if __name__ == "__main__":
    main()
