"""Training steps side by side: an adapter against a full copy, answer positions against all, one process against two.

Each variant runs in a process of its own with one thread. Times are processor seconds (of two processes: wall time),
so that other work on the machine counts little. Memory is the rise over what stood before, libraries warmed up by a
run on a tiny model; the caller's weights are added where both variants need them. Bounds leave out what does not grow
with the model (activations, data loading, Python):

- adapter: forward and the gradient of activations, without that of the weights, 2/3 of the time; the caller's weights
  are shared, so 1 of the 5 copies (weights, the trained copy, its gradients, two AdamW moments) remains. Memory is
  measured at one row a side: at eight, activations outweigh a small model's weights in both variants.
- answer positions: the output embedding runs on the share of positions that predict an answer token; of memory the
  bound is the logits' own share, and only the rise over the weights and their gradients is compared.
- two processes on one thread each: half the time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import ROOT, in_fresh_process, millions, random_llama, report
from memory import memory_rise_mb

STEPS, ROWS = 5, 8
ROUNDS = 2
SHAPE = (8, 768, 8192)
TINY = (1, 64, 512)
LARGE_VOCABULARY = (4, 512, 32768)


def _rows(count: int) -> tuple[list[Any], list[Any]]:
    from eval.data import load_benchmark

    benchmark = load_benchmark("world:forget05")
    return list(benchmark.forget[:count]), list(benchmark.retain[:count])


def _training(
    lm: Any, parametrization: str, rows: int, *, steps: int = STEPS, clock: Callable[[], float]
) -> float:
    """Run ``npo-rt`` through the real trainer; return the median seconds between two of its reports."""
    import finetune_baselines

    forget, retain = _rows(rows)
    ticks: list[float] = []
    adapter = {} if parametrization == "full" else {"dropout": 0.0}
    finetune_baselines.train(
        lm,
        "npo-rt",
        forget=forget,
        retain=retain,
        parametrization=parametrization,
        overrides={"epochs": steps, "batch_size": rows, "preset": "paper", **adapter},
        progress=lambda what, done, total: ticks.append(clock()),
    )
    return statistics.median(after - before for before, after in pairwise(ticks))


def train(parametrization: str) -> dict[str, Any]:
    """Time of a step at `ROWS` rows a side; memory at one."""
    lm = random_llama(*SHAPE)
    _training(random_llama(*TINY), parametrization, 1, steps=2, clock=time.process_time)
    weights = millions(lm.model) * 4e6 / 2**20
    rise = memory_rise_mb(lambda: _training(lm, parametrization, 1, steps=3, clock=time.process_time))
    seconds = _training(lm, parametrization, ROWS, clock=time.process_time)
    return {"seconds": seconds, "peak_mb": weights + rise, "millions": millions(lm.model)}


def processes() -> dict[str, Any]:
    """Time a step of the same whole batch under however many processes were started."""
    lm = random_llama(*SHAPE)
    seconds = _training(lm, "lora", 2 * ROWS, clock=time.perf_counter)
    return {"seconds": seconds, "millions": millions(lm.model)}


def positions(which: str) -> dict[str, Any]:
    """Take forward and backward of the cross-entropy with logits at ``answer`` positions, or at ``all``."""
    import torch

    lm = random_llama(*LARGE_VOCABULARY)
    forget, retain = _rows(2 * ROWS)
    rows = [*forget, *retain]
    batch = lm.collate(lm.encode(rows, [str(row.answer) for row in rows]))
    seconds = []

    def step() -> None:
        start = time.process_time()
        if which == "answer":
            logits = lm.answer_logits(batch)
        else:
            whole = lm.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            logits = whole[batch.predicting]
        torch.nn.functional.cross_entropy(logits.float(), batch.targets).backward()
        lm.model.zero_grad(
            set_to_none=False
        )  # the gradients' memory stays, so that the rise below is the step's
        seconds.append(time.process_time() - start)

    step()
    rise = memory_rise_mb(step)
    for _ in range(STEPS):
        step()
    head = lm.vocab_size * LARGE_VOCABULARY[1]
    body = sum(p.numel() for p in lm.model.parameters()) - head
    share = len(batch.targets) / batch.input_ids.numel()
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": rise,
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


def _rounds(*variants: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the variants in turns; return of each the lowest seconds, which other work disturbed least."""
    found = [[variant() for variant in variants] for _ in range(ROUNDS)]
    return [min(column, key=lambda one: one["seconds"]) for column in zip(*found, strict=True)]


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    here = Path(__file__)
    fresh = partial(partial, in_fresh_process, here)
    lora, full = _rounds(fresh("train", "lora"), fresh("train", "full"))
    answer, whole = _rounds(fresh("positions", "answer"), fresh("positions", "all"))
    one, two = _rounds(fresh("processes"), _two_processes)
    adapter, logits, launched = (
        ("lora", "full copy"),
        ("answer positions", "all"),
        ("2 processes", "1 process"),
    )
    rows = [
        _row("step, seconds", adapter, (lora["seconds"], full["seconds"]), full["millions"], 2 / 3),
        _row("peak memory, MiB", adapter, (lora["peak_mb"], full["peak_mb"]), full["millions"], 1 / 5),
        _row("step, seconds", logits, (answer["seconds"], whole["seconds"]), whole["millions"], whole["time_bound"]),
        _row("memory of a step, MiB", logits, (answer["peak_mb"], whole["peak_mb"]), whole["millions"],
             whole["memory_bound"]),
        _row("step, wall seconds", launched, (two["seconds"], one["seconds"]), one["millions"], 1 / 2),
    ]  # fmt: skip
    busy = os.getloadavg()[0]
    report(
        "training_ratios",
        rows,
        note=f"npo-rt through the trainer, {ROWS} + {ROWS} rows a step (memory of an adapter: 1 + 1), fp32, one "
        f"thread a process, processor seconds but for the last row; logits at a vocabulary of {LARGE_VOCABULARY[2]}, "
        "their memory bound is theirs alone, activations of the blocks come on top; load average while measuring "
        f"{busy:.1f}",
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
