"""``guard.generate`` over plain ``model.generate``, at a size where a token costs over 20 ms on a CPU.

The model is random: its text means nothing, its cost per token is real. Every variant writes exactly the same number
of tokens, and the variants alternate in one run. "After the gate": the prompts were judged before; "with the gate":
they are new. ``mode="beam"`` is the paper's decoding, with every word it has met kept in the encoder's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from harness import interleaved, millions, random_llama, report, times

SHAPE = (12, 768, 32000)
NEW_TOKENS = 24
PHRASES = 10_000


def main() -> None:
    import guard
    from eval.data import load_benchmark
    from eval.data.collate import encode_prompts, pad_left, pad_token_id
    from eval.types import Message

    benchmark = load_benchmark("world:forget05")
    lm = random_llama(*SHAPE)
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain)
    fixed = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    flagged = [e.question for e in benchmark.splits["forget"]]
    judged = [e.question for e in benchmark.splits["neighbours"]]
    new = [
        e.question for e in benchmark.splits["holdout"]
    ]  # asked once each: no encoding of them is in a cache
    for prompt, decision in zip(flagged + judged, g.check_many(flagged + judged), strict=True):
        assert decision.flagged == (prompt in flagged), prompt
    forbidden = tuple(f"{a}{b} {c}ton {n}" for n, (a, b, c) in enumerate(_syllables()))[:PHRASES]
    ten_thousand = guard.Decision(flagged=True, score=1.0, threshold=0.0, phrases=forbidden)

    def plain(prompts: list[str], processors: Callable[[int], list[Any]] = lambda width: []) -> None:
        rows = encode_prompts(lm.tokenizer, lm.template, [(Message("user", p),) for p in prompts])
        ids, mask = pad_left(rows, pad_token_id(lm.tokenizer))
        out = lm.model.generate(
            ids,
            attention_mask=mask,
            pad_token_id=pad_token_id(lm.tokenizer),
            logits_processor=processors(ids.shape[1]),
            **fixed,
        )
        lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)

    def guarded(prompts: list[str], **more: Any) -> None:
        guard.generate(lm.model, lm.tokenizer, prompts, guard=g, **fixed, **more)

    def crowded(prompts: list[str]) -> None:
        decisions = [ten_thousand] * len(prompts)
        plain(prompts, lambda width: [guard.GuardLogitsProcessor(decisions, lm.tokenizer, width)])

    feeds = {"judged": itertools.cycle(judged), "new": iter(new), "flagged": itertools.cycle(flagged)}

    def asking(feed: str, size: int, ask: Callable[..., None], **more: Any) -> Callable[[], None]:
        return lambda: ask([next(feeds[feed]) for _ in range(size)], **more)

    rows = []
    for size in (1, 8):
        works: dict[str, Callable[[], object]] = {
            "plain, innocent": asking("judged", size, plain),
            "unflagged, after the gate": asking("judged", size, guarded),
            "unflagged, with the gate": asking("new", size, guarded),
            "plain, forgotten": asking("flagged", size, plain),
            "flagged, after the gate": asking("flagged", size, guarded),
            f"{PHRASES:,} phrases active": asking("flagged", size, crowded),
        }
        seconds = interleaved(works, repeats=7)
        if size == 1:
            seconds["beam"] = min(times(asking("flagged", 1, guarded, mode="beam"), repeats=2))
        for name in (name for name in seconds if not name.startswith("plain")):
            base = "plain, innocent" if name.startswith("unflagged") else "plain, forgotten"
            rows.append(
                {
                    "model": f"{millions(lm.model):.0f}M",
                    "batch": size,
                    "what": name,
                    "tokens/s": size * NEW_TOKENS / seconds[name],
                    "plain tokens/s": size * NEW_TOKENS / seconds[base],
                    "plain ms a step": 1000 * seconds[base] / NEW_TOKENS,
                    "seconds over plain": seconds[name] / seconds[base],
                    "seconds over flagged": seconds[name] / seconds["flagged, after the gate"],
                }
            )
    report("guard_overhead", rows, note=f"{NEW_TOKENS} new tokens, greedy")


def _syllables() -> Iterator[tuple[str, str, str]]:
    parts = [
        "ba",
        "ce",
        "di",
        "fo",
        "gu",
        "hal",
        "jen",
        "kir",
        "lom",
        "mun",
        "nar",
        "ost",
        "pel",
        "qui",
        "ru",
    ]
    parts += ["sel", "tam", "ulm", "vor", "wex", "yar", "zed"]
    return itertools.product(parts, repeat=3)


if __name__ == "__main__":
    main()
