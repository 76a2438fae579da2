"""The guard's store at 10^3, 10^5 and 10^6 entries: time and memory, exact and by IVF with its recall.

Entries are clustered around encodings of real questions and answers (the embedded benchmark's): each stored vector is
one of them turned to a similarity between 0.6 and 0.95. Queries are stored vectors turned likewise.

    python benchmarks/guard_store.py [SIZE ...]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import in_fresh_process, peak_memory_mb, report

SIZES = (1_000, 100_000, 1_000_000)
QUERIES = 64
BATCH = 100_000


def turned(vectors: Any, rng: Any, low: float, high: float) -> Any:
    """Turn unit vectors to a random similarity with what they were."""
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(low, high, (len(vectors), 1)).astype(np.float32)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * noise).astype(np.float32)


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(kind: str, size: int) -> dict[str, Any]:
    """Measure one index at one size, in this process."""
    from eval.data import load_benchmark
    from guard.encoder import get_encoder
    from guard.store import Entry, Store

    benchmark = load_benchmark("world:forget05")
    rows = [*benchmark.forget, *benchmark.retain][:200]
    centres = get_encoder().encode([t for row in rows for t in (row.question or "", row.answer or "")])
    rng = np.random.default_rng(0)
    store = Store("bench", centres.shape[1])
    base = peak_memory_mb()

    def put(num: int, request: str) -> None:
        first = store.next_id
        entries = [
            Entry(
                id=first + i,
                request=request,
                question=f"q{first + i}",
                answer="",
                group=f"g{(first + i) // 20}",
            )
            for i in range(num)
        ]
        vectors = turned(centres[rng.integers(len(centres), size=2 * num)], rng, 0.6, 0.95)
        store.add(entries, vectors[:num], vectors[num:])

    def build() -> None:
        for start in range(0, size, BATCH):
            put(min(BATCH, size - start), f"build-{start}")

    build_s = seconds(build)
    result: dict[str, Any] = {"index": kind, "entries": size, "build s": build_s, "recall@1": 1.0}
    keys = rng.integers(1, size + 1, size=QUERIES) * 2
    queries = turned(store.forget_index.vectors(keys.astype(np.int64)), rng, 0.6, 0.98)
    exact_scores, exact_keys = store.search(queries, num=1)
    if kind == "ivf":
        result["train s"] = seconds(store.use_ivf)
        info = store.forget_index.info
        result |= {"lists": info.num_lists, "probed": info.num_probed, "measured recall": info.recall}
        hits = exact_scores[:, 0] >= info.hit
        found = np.concatenate([store.search(queries[i : i + 1], num=1)[1] for i in range(QUERIES)])
        result["recall@1"] = float((found == exact_keys)[hits].mean())
    times = [seconds(lambda i=i: store.search(queries[i : i + 1], num=64)) for i in range(QUERIES)]
    adds = [seconds(lambda k=k: put(20, f"more-{k}")) for k in range(5)]
    removes = [seconds(lambda k=k: store.remove(f"more-{k}")) for k in range(5)]
    result |= {
        "query p50 ms": 1000 * statistics.median(times),
        "query p95 ms": 1000 * float(np.quantile(times, 0.95)),
        "add 20 ms": 1000 * statistics.median(adds),
        "remove 20 ms": 1000 * statistics.median(removes),
        "memory MiB": peak_memory_mb() - base,
    }
    return result


def main(sizes: list[int]) -> None:
    rows = []
    for size in sizes or SIZES:
        for kind in ("exact", "ivf"):
            if kind == "ivf" and size < 10_000:
                continue
            rows.append(in_fresh_process(Path(__file__), "--one", kind, str(size)))
            print(rows[-1], file=sys.stderr)
    report(
        "guard_store",
        rows,
        note="two vectors of 384 numbers an entry; memory is the peak of the process over its start, IVF's exact copy "
        "during training included",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main([int(size) for size in sys.argv[1:]])
