"""NPO training step: reference log-probs computed once, against a second copy of the model in every step.

Both variants train the same random model on the same rows with the same loss; each runs in a process of its own, so
that its peak memory is its own. The bounds leave out activations: one forward less of (3 forward-equivalents each for
the trained model on forget and retain, plus 1 for the reference on forget) is 6/7 of the time; parameters, gradients
and two AdamW moments without the copy are 4/5 of the memory. Without retain rows the time bound is 3/4: 3 of 4.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import in_fresh_process, millions, random_llama, report
from memory import memory_rise_mb

STEPS, ROWS = 6, 8
SHAPE = (8, 512, 8192)


def run(variant: str, partner: str = "retain") -> dict[str, Any]:
    import copy

    import torch

    from eval.data import load_benchmark
    from eval.models.scoring import answer_logps
    from finetune_baselines.losses import npo_loss

    lm = random_llama(*SHAPE)
    benchmark = load_benchmark("world:forget05")
    forget, retain = benchmark.forget[:ROWS], benchmark.retain[:ROWS]
    batches = [lm.collate(lm.encode(rows, [str(e.answer) for e in rows])) for rows in (forget, retain)]
    batches = [replace(batch, prompt_group=None) for batch in batches]

    def logps(model: Any, batch: Any) -> Any:
        return answer_logps(model.answer_logits(batch), batch.targets, batch.rows, len(batch))

    if variant == "cached":
        with torch.no_grad():
            stored = logps(lm, batches[0])
    seconds: list[float] = []

    def steps() -> None:
        frozen = None
        if variant == "copy":
            frozen = type(lm)(copy.deepcopy(lm.model), lm.tokenizer, template=lm.template)
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-5)
        lm.model.train()
        for _ in range(STEPS):
            start = time.process_time()
            reference = stored if frozen is None else _without_gradient(frozen)
            loss = npo_loss(logps(lm, batches[0]), reference)
            if partner == "retain":
                loss = loss - logps(lm, batches[1]).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.process_time() - start)

    def _without_gradient(frozen: Any) -> Any:
        with torch.no_grad():
            return logps(frozen, batches[0])

    rise = memory_rise_mb(steps)
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": rise + millions(lm.model) * 4e6 / 2**20,
        "millions": millions(lm.model),
    }


def main() -> None:
    rows = []
    for partner, time_bound in (("retain", 6 / 7), ("none", 3 / 4)):
        cached, copy = (in_fresh_process(Path(__file__), variant, partner) for variant in ("cached", "copy"))
        for what, key, bound in (
            ("step, seconds", "seconds", time_bound),
            ("peak memory, MiB", "peak_mb", 4 / 5),
        ):
            rows.append(
                {
                    "model": f"{cached['millions']:.0f}M",
                    "what": what,
                    "retain rows": ROWS if partner == "retain" else 0,
                    "cached": cached[key],
                    "second copy": copy[key],
                    "ratio": cached[key] / copy[key],
                    "bound": bound,
                }
            )
    report(
        "npo_reference",
        rows,
        note=f"NPO, full fine-tuning, {ROWS} forget rows a step, fp32, processor seconds",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run(*sys.argv[1:])))
    else:
        main()
