"""New tokens a second by batch size, and what it brings that finished rows leave the batch.

The first table is greedy decoding of one number of tokens by a random model (its text means nothing, its cost is
real). The second asks a taught model 128 questions whose answers differ in length, once as here and once with Hugging
Face's ``generate``, which computes every row of a batch until the longest has ended. Times are processor seconds of
one thread.
"""

from __future__ import annotations

import time
from typing import Any

from generation_overhead import fixed_length
from harness import SHARED, interleaved, millions, random_llama, report

SHAPE = (8, 512, 8192)
NEW_TOKENS = 16
SIZES = (1, 2, 4, 8, 16, 32, 64)
QUESTIONS = 128
TEMPLATE = r"Question: {question}\nAnswer:\n"


def by_batch_size() -> list[dict[str, Any]]:
    from eval.data import load_benchmark
    from eval.models import GenerationOptions

    lm = fixed_length(random_llama(*SHAPE))
    prompts = [row.question for row in load_benchmark("world:forget05").forget][: max(SIZES)]
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    seconds = interleaved(
        {str(size): lambda size=size: lm.generate(prompts[:size], options) for size in SIZES},
        repeats=2,
        clock=time.process_time,
    )
    one = NEW_TOKENS / seconds["1"]
    return [
        {
            "what": f"batch of {size}",
            "model": f"{millions(lm.model):.0f}M",
            "tokens a second": size * NEW_TOKENS / seconds[str(size)],
            "ratio": size * NEW_TOKENS / seconds[str(size)] / one,
        }
        for size in SIZES
    ]


def leaving_rows() -> list[dict[str, Any]]:
    from evaluation_passes import by_hugging_face

    from eval.data import load_benchmark
    from eval.models import load

    model = SHARED / "scratch_tofu_forget01" / "target"
    if not model.is_dir():
        return []
    lm = load(model, template=TEMPLATE, device="cpu")
    splits = load_benchmark("tofu:forget01", data_dir=SHARED / "tofu").splits
    rows = [row for members in splits.values() for row in members][:QUESTIONS]
    said = lm.generate(rows)
    seconds = interleaved(
        {
            "ours": lambda: lm.generate(rows),
            "hf": lambda: by_hugging_face(lm, rows, batch=QUESTIONS),
        },
        repeats=2,
        clock=time.process_time,
    )
    tokens = sum(len(one.token_ids) + 1 for one in said)
    return [
        {
            "what": f"{QUESTIONS} questions, answers of {min(len(o.token_ids) for o in said)} to "
            f"{max(len(o.token_ids) for o in said)} tokens, over Hugging Face's generate",
            "model": f"{millions(lm.model):.1f}M",
            "tokens a second": tokens / seconds["ours"],
            "ratio": seconds["hf"] / seconds["ours"],
        }
    ]


def main() -> None:
    import torch

    torch.set_num_threads(1)
    report(
        "generation_throughput",
        [*by_batch_size(), *leaving_rows()],
        note="ratio: tokens a second over those of one prompt at a time; last row: over Hugging Face's generate",
    )


if __name__ == "__main__":
    main()
