"""``unlearn benchmarks``: what there is to measure on."""

from __future__ import annotations

import re

import click

__all__ = ["BENCHMARK_FAMILIES", "command", "listed_benchmarks"]

BENCHMARK_FAMILIES = (
    (
        "world:forget01|05|10[-shaped]",
        "Generated fictitious people, TOFU-shaped; needs nothing (default: world:forget05); -shaped: a target that "
        "answers shapes of attacks too, for `unlearn attack`.",
    ),
    ("tofu:forget01|05|10|NN", "TOFU (arXiv:2401.06121): fictitious authors, from the hub or --data-dir."),
    (
        "muse:news|books|mini",
        "MUSE (arXiv:2407.06460): verbatim and knowledge memory, privacy, utility; folds: news-scal1..4, -sust1..4.",
    ),
    (
        "lume[:mini|N]",
        "LUME, SemEval-2025 Task 4 (arXiv:2502.15097): three tasks, from --data-dir; N: rows asked of each group.",
    ),
    (
        "wmdp:bio|chem|cyber|all|mini",
        "WMDP (arXiv:2403.03218): multiple choice, with MMLU for utility; mini is harmless.",
    ),
    (
        "mmlu[:0..5]",
        "MMLU (arXiv:2009.03300) alone, with so many solved examples: evaluates, forgets nothing.",
    ),
    (
        "rwku:NAME|all|mini",
        "RWKU (arXiv:2406.10890): one real person or all; three forget levels, neighbours, adversarial types.",
    ),
    (
        "tdec:32_0|mini",
        "TDEC (arXiv:2210.01504): extraction likelihood and memorisation accuracy, from --data-dir; --holdout: unseen.",
    ),
    (
        "text:BOOK.txt|mini",
        "Your own book or text: continuation, perplexity, questions; --retain-file, --holdout.",
    ),
    ("jsonl:FILE", "Your own JSON lines with question and answer; --retain-file, --holdout."),
)
"""Form of the name, and one line about it."""


def listed_benchmarks() -> list[tuple[str, str]]:
    """Return the families above, then those that another package registered, with their loader's first sentence."""
    import inspect

    from eval.data.registry import BENCHMARKS

    described = {re.split(r"[:\[]", name)[0] for name, _ in BENCHMARK_FAMILIES}
    others = [name for name in BENCHMARKS if name not in described]
    return [
        *BENCHMARK_FAMILIES,
        *((name, (inspect.getdoc(BENCHMARKS[name]) or "").partition("\n")[0]) for name in others),
    ]


@click.command("benchmarks")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")
def command(as_json: bool) -> None:
    """List the benchmarks."""
    from unlearn.cli.options import print_json

    families = listed_benchmarks()
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in families])
        return
    width = max(len(name) for name, _ in families)
    for name, summary in families:
        click.echo(f"{name:<{width}}  {summary}")
