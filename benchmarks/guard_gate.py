"""The guard's gate: what it recognises and lets through, and what it costs over one bare encode.

Quality on TOFU (where its files are, else on the embedded benchmark): originals, paraphrases, retain authors not seen
in calibration, real authors, world facts, the held-back half of the prompt attacks and of the near misses, each kind
apart. Cost: p50 and p95 of `Guard.check` on new prompts over the encoder alone, and with 16 threads at once.

    python benchmarks/guard_gate.py [forget05 forget10]
    python benchmarks/guard_gate.py hidden MODEL [forget05]

The second compares features: the sentence encoder's; MODEL's hidden states in their place; and these alone under a
linear classifier at 0.5 (the paper's gate without the names, words and calibration of ours).
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from harness import SHARED, report

ATTACK_SEED = 2
PER_ATTACK = 40
THREADS = 16
PROMPTS = 96


def rate(g: Any, prompts: list[Any]) -> float:
    """Share of prompts that are flagged."""
    return sum(d.flagged for d in g.check_many(prompts)) / len(prompts)


class HiddenAlone:
    """The paper's gate: a linear classifier on mean hidden states, forget against retain, at 0.5."""

    def __init__(self, encoder: Any, forget: Sequence[Any], retain: Sequence[Any]) -> None:
        from sklearn.linear_model import LogisticRegression

        self.encoder = encoder
        vectors = encoder.encode([e.question for e in [*forget, *retain]])
        labels = [1] * len(forget) + [0] * len(retain)
        self.head = LogisticRegression(class_weight="balanced", max_iter=1000).fit(vectors, labels)

    def check_many(self, prompts: Sequence[Any]) -> list[Any]:
        from types import SimpleNamespace

        from eval.types import conversation

        texts = [" ".join(m.content for m in conversation(p) if m.is_prompt) for p in prompts]
        flagged = self.head.predict(self.encoder.encode(texts))
        return [SimpleNamespace(flagged=bool(value)) for value in flagged]


def built(features: str, model: Any) -> Callable[..., Any]:
    """Return what builds a gate on these features."""
    from guard import Guard, GuardSettings
    from guard.hidden import HiddenEncoder

    if features == "hidden states alone":
        return lambda forget, retain: HiddenAlone(HiddenEncoder(model), forget, retain)
    chosen = GuardSettings(features="hidden" if model is not None and features == "hidden" else "encoder")
    return lambda forget, retain: Guard.build(forget=forget, retain=retain, settings=chosen, model=model)


def quality(benchmark: Any, features: str = "encoder", model: Any = None) -> list[dict[str, Any]]:
    """Measure recall and false positives, one row a kind of prompt."""
    from eval.attacks import PROMPT_ATTACKS, near_misses, with_subjects

    build = built(features, model)
    rows: list[dict[str, Any]] = []

    def note(kind: str, what: str, prompts: list[Any], g: Any) -> None:
        if prompts:
            rows.append(
                {
                    "benchmark": benchmark.name,
                    **({"features": features} if model is not None else {}),
                    "set": what,
                    "kind": kind,
                    "flagged": rate(g, prompts),
                    "n": len(prompts),
                }
            )

    start = time.perf_counter()
    g = build(benchmark.forget, benchmark.retain)
    print(f"{benchmark.name}: built in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    tested = benchmark.splits["forget"]
    note("recall", "originals", [e.question for e in benchmark.forget], g)
    note("recall", "paraphrases", [e.paraphrased_question for e in tested if e.paraphrased_question], g)
    for split in ("ra", "wf", "neighbours"):
        note("false positives", split, [e.question for e in benchmark.splits.get(split, ())], g)
    halves: list[list[Any]] = [[], []]
    for i, row in enumerate(benchmark.retain):
        halves[i // 20 % 2].append(row)
    unseen = build(benchmark.forget, halves[0])
    note("false positives", "retain authors not seen", [e.question for e in halves[1]], unseen)

    examples = with_subjects(list(tested))
    sample = Random(ATTACK_SEED).sample(examples, min(len(examples), PER_ATTACK))
    total: dict[str, list[Any]] = defaultdict(list)
    for name, attack in PROMPT_ATTACKS.items():
        made = [x for e in sample if (x := attack.apply(e, seed=ATTACK_SEED, half="test")) is not None]
        note("recall", f"attack: {name}", made, g)
        total["attacks"] += made
    note("recall", "attacks together", total["attacks"], g)
    innocent = [*benchmark.splits.get("ra", ()), *benchmark.splits.get("wf", ()), *benchmark.splits["retain"]]
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for miss in near_misses(examples, innocent, seed=ATTACK_SEED, half="test"):
        by_kind[miss.kind].append(miss.prompt)
    for kind, prompts in by_kind.items():
        note("false positives", f"near miss: {kind}", prompts, g)
    note("false positives", "near misses together", [p for ps in by_kind.values() for p in ps], g)
    return rows


def cost(benchmark: Any) -> list[dict[str, Any]]:
    """Measure the gate's time over the encoder's, alone and with many threads; every prompt is new."""
    from guard import Guard

    g = Guard.build(forget=benchmark.forget, retain=benchmark.retain)
    questions = [e.question for e in benchmark.retain[-PROMPTS:]]
    encode, check, many = [], [], []
    for i, question in enumerate(questions):
        start = time.perf_counter()
        g.encoder.encode([f"{question} ({i})"])
        middle = time.perf_counter()
        g.check(f"{question} [{i}]")
        encode.append(middle - start)
        check.append(time.perf_counter() - middle)
    barrier = threading.Barrier(THREADS)

    def ask(k: int) -> None:
        for i in range(6):
            barrier.wait()
            start = time.perf_counter()
            g.check(f"{questions[(k + i * THREADS) % PROMPTS]} <{k} {i}>")
            many.append(time.perf_counter() - start)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    base50, base95 = statistics.median(encode), float(np.quantile(encode, 0.95))
    rows = []
    for name, values in (("one bare encode", encode), ("gate", check), (f"gate, {THREADS} threads", many)):
        p50, p95 = statistics.median(values), float(np.quantile(values, 0.95))
        rows.append(
            {
                "what": name,
                "p50 ms": 1e3 * p50,
                "p95 ms": 1e3 * p95,
                "p50 ratio": p50 / base50,
                "p95 ratio": p95 / base95,
            }
        )
    return rows


def compare_features(name: str, splits: list[str]) -> None:
    """Measure the same prompts on three kinds of features."""
    from eval.data import load_benchmark
    from eval.models import load

    model = load(name)
    kinds = ("encoder", "hidden", "hidden states alone")
    benchmarks = [load_benchmark(f"tofu:{s}", data_dir=SHARED / "tofu") for s in splits or ("forget05",)]
    rows = [row for b in benchmarks for kind in kinds for row in quality(b, kind, model)]
    kept = ("originals", "paraphrases", "ra", "wf", "retain authors not seen")
    report(
        "guard_gate_features",
        [row for row in rows if row["set"] in kept or row["set"].endswith("together")],
        note="share of prompts flagged",
    )


def main(splits: list[str]) -> None:
    from eval.data import load_benchmark

    has_tofu = (SHARED / "tofu").is_dir()
    names = [f"tofu:{s}" for s in splits or ("forget05", "forget10")] if has_tofu else ["world:forget05"]
    benchmarks = [load_benchmark(name, data_dir=SHARED / "tofu" if has_tofu else None) for name in names]
    report("guard_gate", [row for b in benchmarks for row in quality(b)], note="share of prompts flagged")
    report("guard_gate_cost", cost(benchmarks[0]), note="the prompts are new, nothing is found in a cache")


if __name__ == "__main__":
    if sys.argv[1:2] == ["hidden"]:
        compare_features(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
