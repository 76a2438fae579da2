"""A book behind the guard: verbatim continuation and questions about it, before and after, on a generated miniature.

The target has read the book (``text:mini``, made by ``unlearn prepare``, cached). The guard knows the book as documents
alone, or with the questions and answers too. Beside ROUGE-L against the true continuation stands the longest run of
words taken from the book, for several lengths of the run that is never reproduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from harness import report


def longest_run(text: str, book: str) -> int:
    """Words of the longest piece of ``text`` that stands in ``book``."""
    from guard.normalise import plain

    words, page = plain(text).split(), f" {plain(book)} "
    best = 0
    for start in range(len(words)):
        while start + best < len(words) and f" {' '.join(words[start : start + best + 1])} " in page:
            best += 1
    return best


def main() -> None:
    import guard
    import guard.restriction as restriction
    from eval.data import load_benchmark
    from eval.metrics.fluency import ngram_entropy
    from eval.metrics.leakage import leaked_spans
    from eval.metrics.rouge import rouge_scores
    from eval.models import GenerationOptions
    from eval.models.prepare import prepare
    from guard.verbatim import NUM_WORDS, RunMatcher

    benchmark = load_benchmark("text:mini")
    target = prepare("scratch", benchmark).target
    book = "\n\n".join(e.text for e in benchmark.forget)
    passages, questions = benchmark.splits["passages"], benchmark.splits["questions"]
    alone = guard.Guard.build(forget=benchmark.forget, retain=benchmark.taught)
    both = guard.Guard.build(forget=[*benchmark.forget, *questions], retain=benchmark.taught)

    def row(name: str, lm: Any, num_words: int | str) -> dict[str, Any]:
        said = texts(lm, passages, 128)
        told = texts(lm, questions, 48)
        leaks = [
            leaked_spans(t, e.key_spans, question=e.question) for t, e in zip(told, questions, strict=True)
        ]
        return {
            "guard knows": name,
            "run": num_words,
            "passages": len(passages),
            "ROUGE-L": mean(
                [rouge_scores(e.answer, t).rougeL_recall for t, e in zip(said, passages, strict=True)]
            ),
            "longest run": max(longest_run(text, book) for text in said),
            "fluency": mean([ngram_entropy(text) for text in said]),
            "questions": len(questions),
            "leak rate": mean([float(bool(found)) for found in leaks]),
        }

    def texts(lm: Any, examples: Sequence[Any], length: int) -> list[str]:
        return [g.text for g in lm.generate(examples, GenerationOptions(max_new_tokens=length))]

    rows = [row("nothing", target, "")]
    for num_words in (3, 4, 6):
        restriction.RunMatcher = partial(RunMatcher, num_words=num_words)
        restriction._RESTRICTIONS.clear()
        rows.append(row("the book", guard.GuardedModel(target, alone), num_words))
        if num_words == NUM_WORDS:
            rows.append(row("the book and the questions", guard.GuardedModel(target, both), num_words))
    report("guard_verbatim", rows, note="text:mini, scratch model, policy restrict")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
