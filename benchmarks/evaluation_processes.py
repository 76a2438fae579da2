"""One evaluation on one process and on two, each pinned to one core and one thread.

Times are from the first process's start of the evaluation to its end (models are loaded before). ``seconds`` are wall
time and need two idle cores; ``processor seconds`` are those of the busiest process, so that their ratio says how
evenly the work is shared, whatever else the machine does. Goal: 1.7 times as fast.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import ROOT, SHARED, millions, report

ROUNDS = 3
GOAL = 1.7


def worker(result: Path) -> None:
    """Evaluate a share; the main process writes what each took."""
    rank = int(os.environ.get("RANK", "0"))
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import torch

    torch.set_num_threads(1)
    from eval.data import load_benchmark
    from eval.models import load
    from eval.processes import join, num_processes, spread, wait
    from eval.runner import evaluate

    folder = SHARED / "scratch_tofu_forget01"
    lm = load(folder / "target", template=r"Question: {question}\nAnswer:\n", device="cpu")
    benchmark = load_benchmark("tofu:forget01", data_dir=SHARED / "tofu", holdout=folder / "holdout01.json")
    join(lm.device)
    lm.score(benchmark.forget[:8], [str(row.answer) for row in benchmark.forget[:8]])
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    evaluate(lm, benchmark, is_spread=num_processes() > 1)
    took = time.perf_counter() - wall, time.process_time() - cpu
    every = spread(list(range(num_processes())), lambda share: [took for _ in share])
    if rank == 0:
        value = {"wall": took[0], "cpu": max(cpu for _, cpu in every), "model": f"{millions(lm.model):.1f}M"}
        result.write_text(json.dumps(value))


def run(processes: int, folder: Path) -> dict[str, Any]:
    result = folder / f"{processes}.json"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [sys.executable, *(launcher if processes > 1 else ()), str(Path(__file__)), str(result)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def main() -> None:
    if not (SHARED / "scratch_tofu_forget01").is_dir() or len(os.sched_getaffinity(0)) < 2:
        print("skipped: it needs the shared data folder beside this checkout and two cores")
        return
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for processes, rounds in found.items():
                rounds.append(run(processes, Path(folder)))
    wall, cpu = (
        {processes: statistics.median(r[clock] for r in rounds) for processes, rounds in found.items()}
        for clock in ("wall", "cpu")
    )
    report(
        "evaluation_processes",
        [
            {
                "what": "two processes over one",
                "model": found[1][0]["model"],
                "seconds": wall[2],
                "of one": wall[1],
                "times as fast": wall[1] / wall[2],
                "processor seconds": cpu[2],
                "processor seconds of one": cpu[1],
                "times less work": cpu[1] / cpu[2],
            }
        ],
        note=f"the TOFU forget01 metric set, median of {ROUNDS} rounds; goal {GOAL} times",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(Path(sys.argv[1]))
    else:
        main()
