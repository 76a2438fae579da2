"""Peak memory of scoring at a vocabulary of 128,256: logits at answer positions, in bounded batches, against all.

Each side scores the same answers in a process of its own; what is compared is how far memory rose above the loaded
model. The other side runs 16 rows at a time and keeps the logits of every position, as ``model(**batch).logits`` does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from harness import in_fresh_process, millions, random_llama, report
from memory import memory_rise_mb

SHAPE = (2, 256, 128_256)
ROWS, BATCH = 48, 16


def by_full_logits(lm: Any, examples: list[Any]) -> list[float]:
    """Return the summed log-probability of each answer from logits of shape ``(B, T, V)``."""
    import torch

    rows = lm.encode(examples, [example.answer for example in examples])
    sums: list[float] = []
    for start in range(0, len(rows), BATCH):
        batch = lm.collate(rows[start : start + BATCH])
        with torch.no_grad():
            logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            logps = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        targets = batch.labels[:, 1:]
        gold = logps.gather(2, targets.clamp(min=0)[..., None])[..., 0]
        sums += (gold * (targets != -100)).sum(1).tolist()
    return sums


def measure(side: str) -> dict[str, Any]:
    import torch

    from eval.data import load_benchmark

    torch.set_num_threads(1)
    lm = random_llama(*SHAPE)
    examples = list(load_benchmark("world:forget05").forget[:ROWS])
    found: list[float] = []

    def work() -> None:
        if side == "full":
            found.extend(by_full_logits(lm, examples))
        else:
            scores = lm.score(examples, [example.answer for example in examples])
            found.extend(score.sum_logp for score in scores)

    rise = memory_rise_mb(work)
    return {"rise": rise, "sums": found, "model": f"{millions(lm.model):.0f}M"}


def main() -> None:
    from pathlib import Path

    found = {side: in_fresh_process(Path(__file__), side) for side in ("ours", "full")}
    ours, full = found["ours"], found["full"]
    worst = max(abs(a - b) for a, b in zip(ours["sums"], full["sums"], strict=True))
    assert worst < 1e-2, f"the log-probabilities differ by {worst} nats"
    report(
        "evaluation_memory",
        [
            {
                "what": f"scoring {ROWS} answers, vocabulary {SHAPE[2]:,}",
                "model": ours["model"],
                "MiB": ours["rise"],
                "full logits MiB": full["rise"],
                "ratio": ours["rise"] / full["rise"],
                "largest difference (nats a sequence)": worst,
            }
        ],
        note=f"rise of resident memory over the loaded model; full logits: {BATCH} rows at a time",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
