"""Training steps side by side: an adapter against a full copy, answer positions against all, one process against two.

Each variant runs in a process of its own with one thread, so that its peak memory is its own. Bounds leave out what
does not grow with the model (activations, data loading, Python):

- adapter: forward and the gradient of activations, without that of the weights, 2/3 of the time; the caller's weights
  are shared, so 1 of the 5 copies (weights, the trained copy, its gradients, two AdamW moments) remains.
- answer positions: the output embedding runs on the share of positions that predict an answer token.
- two processes on one thread each: half the time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import ROOT, in_fresh_process, millions, peak_memory_mb, random_llama, report

STEPS, ROWS = 6, 8
SHAPE = (8, 512, 8192)
LARGE_VOCABULARY = (4, 512, 32768)


def _rows(count: int) -> tuple[list[Any], list[Any]]:
    from eval.data import load_benchmark

    benchmark = load_benchmark("world:forget05")
    return list(benchmark.forget[:count]), list(benchmark.retain[:count])


def _training(parametrization: str, rows: int) -> dict[str, Any]:
    """Run ``npo-rt`` through the real trainer; a step's time is that between two of its reports."""
    import finetune_baselines

    lm = random_llama(*SHAPE)
    forget, retain = _rows(rows)
    own = peak_memory_mb() - millions(lm.model) * 4e6 / 2**20
    ticks: list[float] = []
    finetune_baselines.train(
        lm,
        "npo-rt",
        forget=forget,
        retain=retain,
        parametrization=parametrization,
        overrides={"epochs": STEPS, "batch_size": rows, "preset": "paper"},
        progress=lambda what, done, total: ticks.append(time.perf_counter()),
    )
    return {
        "seconds": statistics.median(after - before for before, after in pairwise(ticks)),
        "peak_mb": peak_memory_mb() - own,
        "millions": millions(lm.model),
    }


def train(parametrization: str) -> dict[str, Any]:
    return _training(parametrization, ROWS)


def processes() -> dict[str, Any]:
    """Time a step of the same whole batch under however many processes were started."""
    return _training("lora", 2 * ROWS)


def positions(which: str) -> dict[str, Any]:
    """Take forward and backward of the cross-entropy with logits at ``answer`` positions, or at ``all``."""
    import torch

    lm = random_llama(*LARGE_VOCABULARY)
    forget, retain = _rows(2 * ROWS)
    rows = [*forget, *retain]
    batch = lm.collate(lm.encode(rows, [str(row.answer) for row in rows]))
    own = peak_memory_mb() - millions(lm.model) * 4e6 / 2**20
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        if which == "answer":
            logits = lm.answer_logits(batch)
        else:
            whole = lm.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            logits = whole[batch.predicting]
        torch.nn.functional.cross_entropy(logits.float(), batch.targets).backward()
        lm.model.zero_grad()
        seconds.append(time.perf_counter() - start)
    head = lm.vocab_size * LARGE_VOCABULARY[1]
    body = sum(p.numel() for p in lm.model.parameters()) - head
    share = len(batch.targets) / batch.input_ids.numel()
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": peak_memory_mb() - own,
        "millions": millions(lm.model),
        "time_bound": (body + share * head) / (body + head),
        "memory_bound": share,
    }


def _two_processes() -> dict[str, Any]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(Path(__file__)), "processes"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _row(
    what: str, names: tuple[str, str], values: tuple[float, float], size: float, bound: float
) -> dict[str, Any]:
    first, second = values
    return {
        "model": f"{size:.0f}M",
        "what": what,
        "first": names[0],
        "second": names[1],
        "first value": first,
        "second value": second,
        "ratio": first / second,
        "bound": bound,
    }


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    here = Path(__file__)
    lora, full = (in_fresh_process(here, "train", name) for name in ("lora", "full"))
    answer, whole = (in_fresh_process(here, "positions", name) for name in ("answer", "all"))
    one, two = in_fresh_process(here, "processes"), _two_processes()
    adapter, logits, launched = (
        ("lora", "full copy"),
        ("answer positions", "all"),
        ("2 processes", "1 process"),
    )
    rows = [
        _row("step, seconds", adapter, (lora["seconds"], full["seconds"]), full["millions"], 2 / 3),
        _row("peak memory, MiB", adapter, (lora["peak_mb"], full["peak_mb"]), full["millions"], 1 / 5),
        _row("step, seconds", logits, (answer["seconds"], whole["seconds"]), whole["millions"], whole["time_bound"]),
        _row("peak memory, MiB", logits, (answer["peak_mb"], whole["peak_mb"]), whole["millions"],
             whole["memory_bound"]),
        _row("step, seconds", launched, (two["seconds"], one["seconds"]), one["millions"], 1 / 2),
    ]  # fmt: skip
    busy = os.getloadavg()[0]
    report(
        "training_ratios",
        rows,
        note=f"npo-rt through the trainer, {ROWS} + {ROWS} rows a step, fp32, one thread a process; logits at a "
        f"vocabulary of {LARGE_VOCABULARY[2]}; the memory bound of logits is theirs alone, weights and gradients come "
        f"on top; load average while measuring {busy:.1f}",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measured = {"train": train, "positions": positions, "processes": processes}[sys.argv[1]](
            *sys.argv[2:]
        )  # type: ignore[operator]
        if int(os.environ.get("RANK", "0")) == 0:
            print(json.dumps(measured))
    else:
        main()
