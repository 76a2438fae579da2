"""A book and a news corpus behind the guard: verbatim continuation and questions, before and after, on miniatures.

The target has read the texts (``text:mini``, ``muse:mini``, made by ``unlearn prepare``, cached), the oracle has not.
The guard knows the texts as documents alone, or with the questions and answers too. Texts of such a world share their
turns of speech, so the oracle's row says what level is no memory of the texts. "Longest run": words in a row taken
from the texts. For the documents alone several lengths of the run that is never reproduced are shown.

    python benchmarks/guard_verbatim.py [BENCHMARK ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from harness import RESULTS, report

SPLITS = {"text:mini": ("passages", "questions"), "muse:mini": ("verbmem", "forget_qa")}
RUNS = (3, 4, 6)


def longest_run(text: str, source: str) -> int:
    """Words of the longest piece of ``text`` that stands in ``source``."""
    from guard.normalise import plain

    words, page = plain(text).split(), f" {plain(source)} "
    best = 0
    for start in range(len(words)):
        while start + best < len(words) and f" {' '.join(words[start : start + best + 1])} " in page:
            best += 1
    return best


def rows_of(name: str) -> list[dict[str, Any]]:
    """Measure one benchmark."""
    import guard
    import guard.restriction as restriction
    from eval.data import load_benchmark
    from eval.metrics.fluency import ngram_entropy
    from eval.metrics.leakage import leaked_spans
    from eval.metrics.rouge import rouge_scores
    from eval.models.prepare import prepare
    from guard.verbatim import NUM_WORDS, RunMatcher

    benchmark = load_benchmark(name)
    prepared = prepare("scratch", benchmark)
    source = " ".join(e.text for e in benchmark.forget)
    passages, questions = (benchmark.splits[split] for split in SPLITS[name])
    plain = load_benchmark("text:mini")  # the same people, asked about in plain questions
    kept = benchmark.splits.get("retain_qa", plain.taught)
    alone = guard.Guard.build(forget=benchmark.forget, retain=plain.taught)
    both = guard.Guard.build(forget=[*benchmark.forget, *plain.splits["questions"]], retain=plain.taught)

    def row(knows: str, lm: Any, run: int | str = "", g: Any = None) -> dict[str, Any]:
        said, answered = texts(lm, passages, 128), texts(lm, questions, 48)
        leaks = [
            leaked_spans(text, e.key_spans, question=e.question or e.messages[-1].content)
            for text, e in zip(answered, questions, strict=True)
        ]
        return {
            "benchmark": name,
            "model": "target" if lm is not prepared.oracle else "oracle",
            "guard knows": knows,
            "run": run,
            "passages": len(passages),
            "ROUGE-L": mean(
                [rouge_scores(e.answer, t).rougeL_recall for t, e in zip(said, passages, strict=True)]
            ),
            "longest run": max(longest_run(text, source) for text in said),
            "fluency": mean([ngram_entropy(text) for text in said]),
            "questions": len(questions),
            "leak rate": mean([float(bool(found)) for found in leaks]),
            "kept questions flagged": mean([float(d.flagged) for d in g.check_many(kept)]) if g else 0.0,
        }

    rows = [row("nothing", prepared.target), row("nothing", prepared.oracle)]
    for run in RUNS:
        restriction.run_matcher = partial(RunMatcher, num_words=run)
        restriction._RESTRICTIONS.clear()
        rows.append(row("the texts", guard.GuardedModel(prepared.target, alone), run, alone))
        if run == NUM_WORDS:
            rows.append(row("texts and questions", guard.GuardedModel(prepared.target, both), run, both))
    return rows


def texts(lm: Any, examples: Sequence[Any], length: int) -> list[str]:
    """Continue prompts greedily."""
    from eval.models import GenerationOptions

    return [g.text for g in lm.generate(examples, GenerationOptions(max_new_tokens=length))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(names: list[str]) -> None:
    path = RESULTS / "guard_verbatim.json"
    known = json.loads(path.read_text())["rows"] if names and path.is_file() else []
    rows = [row for row in known if row["benchmark"] not in names]  # rows of other benchmarks stay
    rows += [row for name in names or SPLITS for row in rows_of(name)]
    report("guard_verbatim", rows, note="scratch models, policy restrict, greedy")


if __name__ == "__main__":
    main(sys.argv[1:])
