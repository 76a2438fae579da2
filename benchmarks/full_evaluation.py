"""Seconds of one full TOFU evaluation, whole process, beside the peer's and beside scoring without shared prompts.

The peer (OpenUnlearning's evaluator) needed 59 s on 2 cores for this model and data, a plain single-pass evaluator
26 s; both were measured elsewhere on such a machine, so those two ratios are context. The ratio measured here, in one
run, is our scoring with shared prompts over our scoring without.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import SHARED, interleaved, millions, report

PEER_SECONDS, PLAIN_SECONDS = 59.0, 26.0
TEMPLATE = r"Question: {question}\nAnswer:\n"


def whole_process(model: Path, out: Path) -> float:
    command = [
        *(str(Path(sys.executable).parent / "unlearn"), "evaluate", "--model", str(model)),
        *("--benchmark", "tofu:forget01", "--data-dir", str(SHARED / "tofu"), "--template", TEMPLATE),
        *("--holdout", str(SHARED / "scratch_tofu_forget01" / "holdout01.json")),
        *("--reference", str(SHARED / "scratch_tofu_forget01" / "peer_logs" / "oracle" / "TOFU_EVAL.json")),
        *("--output-dir", str(out), "--json"),
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    model = SHARED / "scratch_tofu_forget01" / "target"
    if not model.is_dir():
        print("skipped: the shared data folder is not beside this checkout")
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = statistics.median(whole_process(model, Path(folder) / str(i)) for i in range(3))

    from dataclasses import replace

    from eval.data import load_benchmark
    from eval.models import LanguageModel, load

    class Unshared(LanguageModel):
        """Computes every prompt once for each of its answers."""

        def answer_logits(self, batch, *, module=None):  # type: ignore[no-untyped-def]
            return super().answer_logits(replace(batch, prompt_group=None), module=module)

    lm = load(model, template=TEMPLATE, device="cpu")
    splits = load_benchmark("tofu:forget01", data_dir=SHARED / "tofu").splits
    pairs = [
        (e, a)
        for rows in splits.values()
        for e in rows
        for a in (e.answer, e.paraphrased_answer, *e.perturbed_answers)
        if a
    ]
    examples, answers = [e for e, _ in pairs], [a for _, a in pairs]
    unshared = Unshared(lm.model, lm.tokenizer, template=lm.template)
    scoring = interleaved(
        {
            "shared": lambda: lm.score(examples, answers),
            "unshared": lambda: unshared.score(examples, answers),
        },
        repeats=3,
    )
    size = f"{millions(lm.model):.1f}M"
    report(
        "full_evaluation",
        [
            {
                "what": "whole process",
                "model": size,
                "seconds": seconds,
                "over": "peer 59 s",
                "ratio": seconds / PEER_SECONDS,
            },
            {
                "what": "whole process",
                "model": size,
                "seconds": seconds,
                "over": "plain 26 s",
                "ratio": seconds / PLAIN_SECONDS,
            },
            {
                "what": "scoring, shared prompts",
                "model": size,
                "seconds": scoring["shared"],
                "over": f"unshared {scoring['unshared']:.1f} s",
                "ratio": scoring["shared"] / scoring["unshared"],
            },
        ],
        note="full TOFU forget01 metric set on 697 questions; peer and plain were measured elsewhere",
    )


if __name__ == "__main__":
    main()
