"""Generation with a GRUN edit and behind a GUARD, over plain generation, at a size where a token costs over 20 ms.

The model is random: its text means nothing, its cost per token is real. Every variant generates exactly the same
number of tokens (the end token is banned), and the variants alternate in one run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from harness import interleaved, millions, random_llama, report

SHAPE = (12, 768, 32000)
NEW_TOKENS = 24


def fixed_length(lm: Any) -> Any:
    """Ban the end token, so that every variant writes NEW_TOKENS tokens."""
    eos = lm.tokenizer.eos_token_id
    inner = lm.processors

    class NoEnd:
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.clone()
            scores[:, eos] = -float("inf")
            return scores

        def select(self, rows: list[int]) -> NoEnd:
            return self

    lm.processors = lambda prompts, length: [*inner(prompts, length), NoEnd()]
    return lm


def main() -> None:
    import grun.model
    import guard
    from eval.data import load_benchmark
    from eval.models import GenerationOptions, LanguageModel

    benchmark = load_benchmark("world:forget05")
    plain = fixed_length(random_llama(*SHAPE))
    edited, _ = grun.model.new_edit(LanguageModel(plain.model, plain.tokenizer), layers=(0.3, 0.6, 0.9))
    edited = fixed_length(edited)
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain)
    guarded = fixed_length(guard.GuardedModel(LanguageModel(plain.model, plain.tokenizer), g))
    flagged = [e.paraphrased_question for e in benchmark.splits["forget"]]  # wordings the guard never encoded
    innocent = [e.question for e in benchmark.splits["neighbours"]]
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)

    rows = []
    for size in (1, 8):

        def work(lm: Any, prompts: list[Any], size: int = size) -> Callable[[], object]:
            """Ask new questions at every call, so that no encoding of a prompt is found in a cache."""
            batches = itertools.cycle([prompts[i : i + size] for i in range(0, len(prompts) - size, size)])
            return lambda: lm.generate(next(batches), options)

        seconds = interleaved(
            {
                "plain, innocent": work(plain, innocent),
                "grun, innocent": work(edited, innocent),
                "guard, innocent": work(guarded, innocent),
                "plain, flagged": work(plain, flagged),
                "guard, flagged": work(guarded, flagged),
            },
            repeats=5,
        )
        for name, base in (
            ("grun, innocent", "plain, innocent"),
            ("guard, innocent", "plain, innocent"),
            ("guard, flagged", "plain, flagged"),
        ):
            rows.append(
                {
                    "model": f"{millions(plain.model):.0f}M",
                    "batch": size,
                    "what": name,
                    "ms a token": 1000 * seconds[name] / NEW_TOKENS,
                    "plain ms a token": 1000 * seconds[base] / NEW_TOKENS,
                    "ratio": seconds[name] / seconds[base],
                }
            )
    report(
        "generation_overhead",
        rows,
        note=f"{NEW_TOKENS} new tokens, greedy, the guard's check of the prompt included",
    )


if __name__ == "__main__":
    main()
