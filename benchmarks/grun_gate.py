"""How often GRUN's gate fires on prompts it was not fitted on: every split of the benchmarks, own and other wordings.

Fitted as ``grun-*`` fits it, on three draws of the generated world and on TOFU's forget05, each with a model of about
1 M parameters made from nothing. "Paraphrased" is a wording of the benchmark that no fit sees. A prompt fires the gate
where its largest value is above one half. Goals: 95 % of the forget rows, at most 2 % of the others.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from grun_comparison import load as load_tofu
from harness import SHARED, millions, report

WORLD, TOFU = "world:forget05", "tofu:forget05"
GOALS = {True: 0.95, False: 0.02}
"""Whether the gate should fire to the rate that is asked for: at least, at most."""


def fitted(lm: Any, benchmark: Any) -> tuple[Any, float]:
    """Return an edit with fitted gates and the processor seconds of the fit."""
    from eval.models.blocks import decoder_blocks
    from grun.gate_fit import fit_gates, forget_fits
    from grun.model import new_edit
    from grun.settings import settings_for

    forget_fits()
    settings = settings_for("npo", {}, num_blocks=len(decoder_blocks(lm.model)[1]))
    edited, _ = new_edit(
        lm, layers=settings.layers, rank=settings.rank, gate=settings.gate, positions=settings.positions
    )
    start = time.process_time()
    fit_gates(
        edited,
        benchmark.forget,
        [*benchmark.retain, *benchmark.background],
        steps=settings.gate_fit_steps,
        variants=settings.gate_variants,
        rounds=settings.gate_rounds,
    )
    return edited, time.process_time() - start


def read(name: str, seed: int) -> list[dict[str, Any]]:
    """Return a row for each split of a benchmark and each of its wordings."""
    from eval.data import load_benchmark
    from eval.models.prepare import prepare
    from grun.gate_report import benchmark_prompts

    benchmark = load_benchmark(name, seed=seed) if name == WORLD else load_tofu(name)
    target = prepare("scratch:small", benchmark).target
    edited, seconds = fitted(target, benchmark)
    rows = []
    for split, (should_fire, prompts) in benchmark_prompts(benchmark.splits).items():
        fired = int((edited.gate(prompts).max(axis=1) > 0.5).sum())
        rows.append(
            {"benchmark": name, "seed": seed, "millions": millions(target.model), "split": split}
            | {
                "should fire": should_fire,
                "prompts": len(prompts),
                "fired": fired,
                "rate": fired / len(prompts),
            }
            | {"fit, processor seconds": seconds}
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Say over all splits of each benchmark what fires, beside the goals."""
    parts = []
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        for should_fire, splits in ((True, "paraphrased forget rows"), (False, "all other rows")):
            chosen = [
                row
                for row in rows
                if (row["benchmark"], row["should fire"]) == (name, should_fire)
                and (not should_fire or row["split"] != "forget")
            ]
            fired, count = (sum(row[key] for row in chosen) for key in ("fired", "prompts"))
            bound = f"{'at least' if should_fire else 'at most'} {GOALS[should_fire]:g}"
            parts.append(f"{name}, {splits}: {fired} of {count} ({fired / count:.3f}; goal {bound})")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="draws of the generated world (default: 3)")
    given = parser.parse_args()
    cases = [(WORLD, seed) for seed in range(given.seeds)]
    cases += [(TOFU, 0)] if (SHARED / "tofu").is_dir() else []
    rows = [row for name, seed in cases for row in read(name, seed)]
    report("grun_gate", rows, note=summary(rows))


if __name__ == "__main__":
    main()
