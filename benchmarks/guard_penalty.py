"""How much does the penalty that `GuardedModel` takes from banned tokens in scoring matter? It is fixed, never tuned.

The embedded world's target behind a guard, its answers scored under several penalties: mean length-normalised
probability of forgotten answers, truth ratio of the forget set, and the probability of retained answers, which no
penalty may change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import report

PENALTIES = (0.0, 2.5, 5.0, 10.0, 20.0, 40.0)


def probability(lm: Any, examples: Any, answers: list[str]) -> np.ndarray:
    return np.array([score.prob for score in lm.score(examples, answers)])


def main() -> None:
    import guard
    import guard.model as guarded_model
    from eval.data import load_benchmark
    from eval.models.prepare import prepare

    benchmark = load_benchmark("world:forget05")
    target = prepare("scratch", benchmark).target
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain, background=benchmark.background)
    lm = guard.GuardedModel(target, g)
    forget, retain = benchmark.splits["forget"], benchmark.splits["retain"]
    wrong = [(e, answer) for e in forget for answer in e.perturbed_answers]
    usual, rows = guarded_model.PENALTY, []
    for penalty in PENALTIES:
        guarded_model.PENALTY = penalty
        gold = probability(lm, forget, [e.answer for e in forget])
        said = probability(lm, forget, [e.paraphrased_answer for e in forget])
        others = probability(lm, [e for e, _ in wrong], [a for _, a in wrong]).reshape(len(forget), -1)
        kept = probability(lm, retain, [e.answer for e in retain])
        rows.append(
            {
                "penalty (nats)": penalty,
                "used": "yes" if penalty == usual else "",
                "n": len(forget),
                "forget probability": float(gold.mean()),
                "forget truth ratio": float((others.mean(axis=1) / (said + 1e-10)).mean()),
                "truth ratio, min(r, 1/r)": float(_folded(others.mean(axis=1) / (said + 1e-10)).mean()),
                "retain probability": float(kept.mean()),
            }
        )
    guarded_model.PENALTY = usual
    report("guard_penalty", rows, note="world:forget05, scratch model, policy restrict")


def _folded(ratio: np.ndarray) -> np.ndarray:
    return np.minimum(ratio, 1 / np.maximum(ratio, 1e-30))


if __name__ == "__main__":
    main()
