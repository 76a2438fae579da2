"""What does semantic matching add to exact matching? Nearness to the forgotten answers, and quality.

Flagged questions are answered by a model that knows the answers (the embedded world's, or one of yours that was taught
TOFU), with exact matching alone and with `SoftMatch` at several settings. ``similarity`` is the sentence encoder's
cosine between what is said and what was to be forgotten: what a reader could still infer in other words.

    python benchmarks/guard_soft.py [tofu:forget05 MODEL]
"""

from __future__ import annotations

import sys
from typing import Any

from harness import SHARED, millions, report

SETTINGS = (None, (0.8, 1.0), (0.6, 1.0), (0.5, 1.0), (0.8, 10.0), (0.5, 10.0))
"""``delta`` and ``alpha``; the second is the default."""
NUM_QUESTIONS = 60
NEW_TOKENS = 40


def main(name: str = "world:forget05", model: str = "") -> None:
    import numpy as np

    import guard
    from eval.data import load_benchmark
    from eval.metrics.fluency import ngram_entropy
    from eval.metrics.rouge import rouge_scores
    from eval.models import GenerationOptions, load
    from eval.models.prepare import prepare
    from guard.refusals import REFUSALS

    benchmark = load_benchmark(name, data_dir=SHARED / "tofu" if name.startswith("tofu") else None)
    lm = load(model) if model else prepare("scratch", benchmark).target
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain, background=benchmark.background)
    asked = benchmark.forget[:: max(1, len(benchmark.forget) // NUM_QUESTIONS)][:NUM_QUESTIONS]
    truth = g.encoder.encode([e.answer for e in asked])
    rows: list[dict[str, Any]] = []
    for setting in ("unguarded", *SETTINGS):
        if setting == "unguarded":
            answering: Any = lm
        else:
            soft = guard.SoftMatch(g.encoder, delta=setting[0], alpha=setting[1]) if setting else None
            answering = guard.GuardedModel(lm, g, soft=soft)
        answers = answering.generate(
            [e.question for e in asked], GenerationOptions(max_new_tokens=NEW_TOKENS)
        )
        texts = [answer.text for answer in answers]
        said = [text for text in texts if text not in REFUSALS]
        rows.append(
            {
                "matching": setting if isinstance(setting, str) else "exact" if setting is None else "soft",
                "delta": setting[0] if isinstance(setting, tuple) else "",
                "alpha": setting[1] if isinstance(setting, tuple) else "",
                "similarity": float(np.mean((g.encoder.encode(texts) * truth).sum(axis=1))),
                "ROUGE-L": float(
                    np.mean(
                        [rouge_scores(e.answer, t).rougeL_recall for t, e in zip(texts, asked, strict=True)]
                    )
                ),
                "refused": 1 - len(said) / len(texts),
                "fluency": float(np.mean([ngram_entropy(text) for text in said])) if said else None,
                "n": len(texts),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    report(
        "guard_soft",
        rows,
        note=f"{name}, {millions(lm.model):.1f} M parameters; fluency in bits (n-gram entropy) of what is no refusal",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
