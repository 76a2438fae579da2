"""``make bench``: run every benchmark, each in a process of its own; ``python benchmarks/run.py NAME`` runs one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "full_evaluation",
    "evaluation_passes",
    "evaluation_memory",
    "evaluation_processes",
    "generation_throughput",
    "npo_reference",
    "training_ratios",
    "tofu_forget50",
    "unlearning_dynamics",
    "generation_overhead",
    "grun_overhead",
    "grun_gate",
    "grun_steps",
    "grun_comparison",
    "grun_sequence",
    "guard_overhead",
    "guard_leaks",
    "guard_verbatim",
    "guard_penalty",
    "guard_soft",
    "guard_gate",
    "guard_latency",
    "guard_beam",
    "guard_store",
)


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"Unknown benchmark {unknown[0]!r}; available: {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    codes = [
        subprocess.run([sys.executable, str(HERE / f"{n}.py")], check=False).returncode
        for n in names or NAMES
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
