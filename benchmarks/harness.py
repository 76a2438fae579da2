"""What the benchmarks share: models of a stated size, time and memory of a piece of work, JSON and a table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


def random_llama(layers: int, hidden: int, vocab: int, *, seed: int = 0) -> Any:
    """Build a Llama with random weights; returns a `LanguageModel` whose tokenizer knows the embedded benchmark."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from eval.models import LanguageModel
    from eval.models.scratch import untrained

    tokenizer = untrained("tiny").tokenizer
    config = LlamaConfig(
        vocab_size=max(vocab, len(tokenizer)),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    return LanguageModel(model, tokenizer, name=f"random Llama {millions(model):.0f}M")


def millions(model: Any) -> float:
    """Return a model's parameters in millions."""
    return float(sum(p.numel() for p in model.parameters()) / 1e6)


def times(
    work: Callable[[], object],
    *,
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the seconds of each repeat after the warm-up, by a clock."""
    for _ in range(warmup):
        work()
    out = []
    for _ in range(repeats):
        start = clock()
        work()
        out.append(clock() - start)
    return out


def interleaved(
    works: dict[str, Callable[[], object]],
    *,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Time several works side by side, alternating, and return the median seconds of each.

    ``clock=time.process_time`` counts what the process itself computes: for machines that others use as well.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name] += times(work, repeats=1, warmup=0, clock=clock)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_fresh_process(script: Path, *arguments: str) -> dict[str, Any]:
    """Run ``script`` with arguments in a process of its own (for its peak memory); it prints one JSON line last."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def peak_memory_mb() -> float:
    """Return this process's largest resident memory so far, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(name: str, rows: list[dict[str, Any]], *, note: str = "") -> None:
    """Write ``results/name.json`` and print the rows as a table."""
    from eval.artifacts import environment, write_json

    write_json(
        RESULTS / f"{name}.json",
        {"name": name, "note": note, "rows": rows, "environment": environment("cpu")},
    )
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    print(f"\n{name}" + (f": {note}" if note else ""))
    print("  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)))
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)))


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
