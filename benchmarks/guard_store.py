"""The guard's store at 10^3, 10^5 and 10^6 entries: time, memory and disk; exact, and by IVF with its recall.

Entries are clustered around encodings of real questions and answers (TOFU's where its files are, else the embedded
benchmark's): each stored vector is one of them turned to a similarity between 0.6 and 0.95. Queries are stored vectors
turned to one between 0.5 and 1; they are not those that chose the IVF index's number of probed lists. A search asks
for the 64 nearest, as the gate does. What is added and removed is one request of 20 entries, each time with a save.

    python benchmarks/guard_store.py [SIZE ...]      # some sizes anew; the rows of others stay
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, SHARED, in_fresh_process, peak_memory_mb, report

SIZES = (1_000, 100_000, 1_000_000)
QUERIES = 100
RECALL_QUERIES = 2_000
BATCH = 16_384
NEAREST = 64
MAX_ROWS = 1_000
REQUEST = 20
"""Entries of a request, and of a group."""


def turned(vectors: Any, rng: Any, low: float, high: float) -> Any:
    """Turn unit vectors to a random similarity with what they were."""
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(low, high, (len(vectors), 1)).astype(np.float32)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * noise).astype(np.float32)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory_mb() -> float:
    """Return what the process holds now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def told(label: str, done: int, total: int) -> None:
    print(f"  {label}: {done:,} of {total:,}", file=sys.stderr, flush=True)


def real_texts() -> tuple[str, list[str]]:
    """Return a benchmark's name and questions and answers of it, alternating."""
    from eval.data import load_benchmark

    has_tofu = (SHARED / "tofu").is_dir()
    name = "tofu:forget10" if has_tofu else "world:forget05"
    benchmark = load_benchmark(name, data_dir=SHARED / "tofu" if has_tofu else None)
    rows = [*benchmark.forget, *benchmark.retain][:MAX_ROWS]
    return name, [text for row in rows for text in (row.question or "", row.answer or "")]


class Filler:
    """Puts requests of made-up entries into a store: real texts, each with its number, and three phrases."""

    def __init__(self, store: Any, texts: list[str], centres: Any, rng: Any) -> None:
        self.store, self.texts, self.centres, self.rng = store, texts, centres, rng

    def __call__(self, num: int) -> str:
        from guard.store import Entry

        first = self.store.next_id
        pairs = self.rng.integers(len(self.texts) // 2, size=num)
        entries = [
            Entry(
                id=i,
                request=f"request-{(i - 1) // REQUEST}",
                question=f"{self.texts[2 * pair]} ({i})",
                answer=f"{self.texts[2 * pair + 1]} ({i})",
                group=f"person {(i - 1) // REQUEST}",
                phrases=tuple(f"{word} {i}" for word in self.texts[2 * pair + 1].split()[-3:]),
            )
            for i, pair in enumerate(pairs.tolist(), start=first)
        ]
        questions, answers = (turned(self.centres[2 * pairs + k], self.rng, 0.6, 0.95) for k in (0, 1))
        self.store.add(entries, questions, answers)
        return entries[0].request


def measure(kind: str, size: int, folder: Path) -> dict[str, Any]:
    """Measure one index at one size, in this process."""
    from guard.persistence import save_store
    from guard.store import Store

    name, texts = real_texts()
    centres = np.load(folder / "centres.npy")
    rng = np.random.default_rng(0)
    store = Store("bench", centres.shape[1])
    put = Filler(store, texts, centres, rng)

    def build() -> None:
        for start in range(0, size, BATCH):
            put(min(BATCH, size - start))
            told("entries", len(store), size)

    result: dict[str, Any] = {
        "index": kind,
        "entries": size,
        "clustered around": name,
        "build s": seconds(build),
    }
    keys = 2 * rng.integers(1, size + 1, size=RECALL_QUERIES) + rng.integers(2, size=RECALL_QUERIES)
    queries = turned(store.forget_index.vectors(keys), rng, 0.5, 1.0)
    if kind == "ivf":
        best, true = (found[:, 0] for found in store.search(queries, num=1))
        result["train s"] = seconds(lambda: store.use_ivf(progress=told))
        info = store.forget_index.info
        found = store.search(queries, num=NEAREST)[1][:, 0]
        result |= {"lists": info.num_lists, "probed": info.num_probed, "recall@1 when chosen": info.recall}
        result |= {
            "recall@1": float((found == true)[best >= info.hit].mean()),
            "hits": int((best >= info.hit).sum()),
        }
    asked = iter(range(QUERIES))
    times = [seconds(lambda i=i: store.search(queries[i : i + 1], num=NEAREST)) for i in asked]
    result |= {
        "query p50 ms": 1000 * statistics.median(times),
        "query p95 ms": 1000 * float(np.quantile(times, 0.95)),
        "save s": seconds(lambda: save_store(store, folder / "store", {})),
        "disk MiB": sum(path.stat().st_size for path in (folder / "store").iterdir()) / 2**20,
    }
    adds, saves, removes, saves_after = [], [], [], []
    for _ in range(5):
        adds.append(seconds(lambda: put(REQUEST)))
        saves.append(seconds(lambda: save_store(store, folder / "store", {})))
    for _ in range(5):
        victim = list(store.requests)[int(rng.integers(len(store.requests)))]
        removes.append(seconds(lambda v=victim: store.remove(v)))
        saves_after.append(seconds(lambda: save_store(store, folder / "store", {})))
    result |= {
        "add ms": 1000 * statistics.median(adds),
        "save after add s": statistics.median(saves),
        "remove ms": 1000 * statistics.median(removes),
        "save after remove s": statistics.median(saves_after),
        "peak MiB": peak_memory_mb(),
    }
    return result


def read_back(folder: Path) -> dict[str, Any]:
    """Measure what a process that serves the store holds."""
    from guard.persistence import load_store

    load_store(folder / "empty", str.isalpha)  # the libraries are there before the start is taken
    before = memory_mb()
    start = time.perf_counter()
    store, _ = load_store(folder / "store", str.isalpha)
    return {"load s": time.perf_counter() - start, "memory MiB": memory_mb() - before, "loaded": len(store)}


def main(sizes: list[int]) -> None:
    from guard.encoder import get_encoder
    from guard.persistence import save_store
    from guard.store import Store

    centres = get_encoder().encode(real_texts()[1])
    rows = []
    if sizes and (RESULTS / "guard_store.json").is_file():  # rows of other sizes stay
        known = json.loads((RESULTS / "guard_store.json").read_text())["rows"]
        rows = [row for row in known if row["entries"] not in sizes]
    for size in sizes or SIZES:
        for kind in ("exact", "ivf"):
            if kind == "ivf" and size < 10_000:
                continue
            print(f"{kind}, {size:,} entries", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
                np.save(Path(folder) / "centres.npy", centres)
                save_store(Store("bench", centres.shape[1]), Path(folder) / "empty", {})
                row = in_fresh_process(Path(__file__), "--one", kind, str(size), folder)
                rows.append(row | in_fresh_process(Path(__file__), "--read", folder))
            rows.sort(key=lambda row: (row["entries"], row["index"]))
            report(
                "guard_store",
                rows,
                note="two vectors of 384 numbers an entry; memory: what a process holds that has read the store "
                "(texts, phrases, vectors); peak: the most that the process held that built it, with the libraries "
                "and, for IVF, the exact vectors it was measured on",
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    elif sys.argv[1:2] == ["--read"]:
        print(json.dumps(read_back(Path(sys.argv[2]))))
    else:
        main([int(size) for size in sys.argv[1:]])
