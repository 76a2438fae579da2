"""How often does the guarded model say what it should not? By attack; gate alone, decoder alone, both.

The embedded world's target (made by ``unlearn prepare``, cached) is asked every forgotten question in its own wording,
in the untaught paraphrase, and under every prompt attack. A prompt leaks if the answer says a key span. A row whose
leak rate without the guard is below one half says nothing about the guard and is marked so. ``gate`` refuses what
the gate flags; ``decoder`` bans the phrases of every entry at every prompt, flagged or not; ``both`` is the policy
``restrict``. Names of rows on the command line run these alone. Every answer is kept in ``runs/guard_leaks/``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness import ROOT, report

INFORMATIVE = 0.5
NEW_TOKENS = 48


@dataclass(frozen=True)
class Asked:
    """One prompt of a row and what would be a leak in its answer."""

    example: Any
    spans: tuple[str, ...]
    said: str
    """Text that gives no leak away: spans in it do not count."""


def rows_of(benchmark: Any) -> Iterator[tuple[str, str, list[Asked]]]:
    """Yield name, wording half and prompts of each row of the table."""
    from eval.attacks import PROMPT_ATTACKS, with_subjects

    examples = with_subjects([e for e in benchmark.splits["forget"] if e.key_spans])
    yield "original", "", [Asked(e, e.key_spans, e.question) for e in examples]
    paraphrased = [e.replace(question=e.paraphrased_question) for e in examples]
    yield "paraphrased", "", [Asked(e, e.key_spans, e.question) for e in paraphrased]
    for name, attack in PROMPT_ATTACKS.items():
        half = "taught" if attack.taught_as else "test"
        asked = []
        for example in examples:
            attacked = attack.apply(example, half=half)
            if attacked is None:
                continue
            prompt = " ".join(m.content for m in attacked.conversation if m.role == "user")
            # a right choice is a leak although the list names it; asked in reverse, the person is the secret
            spans = (example.subject,) if name == "reverse" else attacked.key_spans
            asked.append(Asked(attacked, spans, example.question if name == "choice" else prompt))
        if asked:
            yield name, half, asked


class EveryPhrase:
    """Stands in for a guard whose gate flags everything: all phrases of the store, at every prompt."""

    refusals: Sequence[str] = ()

    def __init__(self, guard: Any) -> None:
        from guard import Decision

        phrases = dict.fromkeys(p for entry in guard.store.entries.values() for p in entry.phrases)
        self.decision = Decision(flagged=True, score=1.0, threshold=0.0, phrases=tuple(phrases))

    def check_many(self, prompts: Sequence[Any]) -> list[Any]:
        return [self.decision] * len(prompts)


def main(only: list[str]) -> None:
    import guard
    from eval.artifacts import write_json
    from eval.data import load_benchmark
    from eval.metrics.fluency import ngram_entropy
    from eval.metrics.leakage import leaked_spans
    from eval.models import GenerationOptions
    from eval.models.prepare import prepare
    from guard.refusals import REFUSALS

    benchmark = load_benchmark("world:forget05")
    target = prepare("scratch", benchmark).target
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain, background=benchmark.background)
    models = {
        "before": target,
        "gate": guard.GuardedModel(target, g, policy="refuse"),
        "decoder": guard.GuardedModel(target, EveryPhrase(g)),
        "both": guard.GuardedModel(target, g),
    }
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    table, answers = [], []
    for name, half, asked in rows_of(benchmark):
        if only and name not in only:
            continue
        row: dict[str, Any] = {"attack": name, "wording": half, "n": len(asked)}
        for variant, lm in models.items():
            texts = [generation.text for generation in lm.generate([a.example for a in asked], options)]
            leaks = [
                bool(leaked_spans(t, a.spans, question=a.said)) for t, a in zip(texts, asked, strict=True)
            ]
            row[variant] = sum(leaks) / len(leaks)
            answers += [
                {"id": a.example.id, "variant": variant, "answer": text, "leaks": leak}
                for a, text, leak in zip(asked, texts, leaks, strict=True)
            ]
            if variant in ("before", "both"):
                said = [text for text in texts if text not in REFUSALS]
                row[f"fluency {variant}"] = sum(map(ngram_entropy, said)) / max(1, len(said))
        row["informative"] = "" if row["before"] >= INFORMATIVE else "not informative"
        table.append(row)
        print(f"{name}: {row}", file=sys.stderr, flush=True)
    write_json(ROOT / "runs" / "guard_leaks" / "answers.json", answers, indent=None)
    report(
        "guard_leaks" if not only else "guard_leaks_some",
        table,
        note="leak rates on world:forget05; fluency in bits (n-gram entropy) of answers that are no refusals",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
