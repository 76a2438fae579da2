"""The default decoding of a flagged prompt against the paper's beam search, at a size where a token costs over 20 ms.

Three beam searches of the same width (7 beams, 7 candidates each) on the same prompts:

- ours (``mode="beam"``): new words of a step in one batch, known ones from the encoder's cache;
- the paper's to the letter: one call of the sentence encoder for each candidate of each step, nothing kept;
- that without the model's key-value cache too, as the third-party re-implementation runs it.

Seconds are those the process computes, so that another load on the machine does not count.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness import interleaved, millions, random_llama, report

SHAPE = (16, 768, 0)  # as many tokens as the tokenizer has, so that every candidate is one
NEW_TOKENS = 6


def main() -> None:
    import numpy as np

    import guard
    from eval.data import load_benchmark
    from guard.beam import BeamSearch

    benchmark = load_benchmark("world:forget05")
    lm = random_llama(*SHAPE)
    g = guard.Guard.build(forget=benchmark.forget, retain=benchmark.retain)
    prompts = [e.question for e in benchmark.splits["forget"]][:8]
    fixed = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    calls = 0

    class OneByOne:
        """An encoder that keeps nothing."""

        def encode(self, texts: Sequence[str]) -> Any:
            nonlocal calls
            calls += len(texts)
            return np.stack([g.encoder._forward([text])[0] for text in texts])

    class Literal(BeamSearch):
        """Asks the encoder for each candidate, also where two end in the same word."""

        def _penalties(self, words: Sequence[str]) -> list[float]:
            return [super(Literal, self)._penalties([word])[0] for word in words]

    class Forgetful:
        """A model that computes every step from the first token on."""

        def __init__(self, model: Any) -> None:
            self.model, self.sequences = model, None

        def __call__(self, *, input_ids: Any, past_key_values: Any, use_cache: bool) -> Any:
            import torch

            if past_key_values is not None:
                input_ids = torch.cat([past_key_values.sequences, input_ids], dim=1)
            out = self.model(input_ids=input_ids, use_cache=False)
            out.past_key_values = Rows(input_ids)
            return out

    class Rows:
        """Stands where the key-value cache would: the tokens themselves."""

        def __init__(self, sequences: Any) -> None:
            self.sequences = sequences

        def reorder_cache(self, parents: Any) -> None:
            self.sequences = self.sequences[parents]

    class Uncached(Literal):
        """The same, and without the model's cache."""

        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(Forgetful(model), *args, **kwargs)

    turn = itertools.cycle(prompts)

    def plain() -> None:
        ids = lm.tokenizer(next(turn), return_tensors="pt").input_ids
        lm.model.generate(ids, pad_token_id=lm.tokenizer.pad_token_id, **fixed)

    def ours(**more: Any) -> None:
        guard.generate(lm.model, lm.tokenizer, [next(turn)], guard=g, **fixed, **more)

    def search(kind: type[BeamSearch]) -> Callable[[], None]:
        def run() -> None:
            prompt = next(turn)
            ids = lm.tokenizer(prompt, return_tensors="pt").input_ids
            loop = kind(OneByOne(), g.check(prompt), lm.tokenizer)  # type: ignore[arg-type]
            lm.model.generate(
                ids,
                custom_generate=loop,
                num_beams=7,
                pad_token_id=lm.tokenizer.pad_token_id,
                trust_remote_code=False,
                **fixed,
            )

        return run

    g.check_many(prompts)
    works: dict[str, Callable[[], object]] = {
        "plain": plain,
        "default (restrict)": ours,
        "mode='beam', new words": lambda: (g.encoder._cache.clear(), ours(mode="beam")),
        "the paper's, one encode a candidate": search(Literal),
        "that without the model's cache": search(Uncached),
    }
    seconds = interleaved(works, repeats=2, clock=time.process_time)
    base = seconds["default (restrict)"]
    rows = [
        {
            "model": f"{millions(lm.model):.0f}M",
            "what": name,
            "ms a token": 1000 * value / NEW_TOKENS,
            "times the default": value / base,
        }
        for name, value in seconds.items()
    ]
    rows[3]["encodes a token"] = rows[4]["encodes a token"] = calls / (2 * 3 * NEW_TOKENS)
    report("guard_beam", rows, note=f"{NEW_TOKENS} new tokens, one prompt at a time, seconds of computing")


if __name__ == "__main__":
    main()
