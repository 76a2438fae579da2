"""``unlearn benchmarks``: what there is to measure on."""

from __future__ import annotations

import click

__all__ = ["BENCHMARK_FAMILIES", "command"]

BENCHMARK_FAMILIES = (
    (
        "world:forget01|05|10",
        "Generated fictitious people, TOFU-shaped; needs nothing (default: world:forget05).",
    ),
    ("tofu:forget01|05|10|NN", "TOFU (arXiv:2401.06121): fictitious authors, from the hub or --data-dir."),
    ("jsonl:FILE", "Your own JSON lines with question and answer; --retain-file, --holdout."),
)
"""Form of the name, and one line about it."""


@click.command("benchmarks")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")
def command(as_json: bool) -> None:
    """List the benchmarks."""
    from unlearn.cli.options import print_json

    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in BENCHMARK_FAMILIES])
        return
    for name, summary in BENCHMARK_FAMILIES:
        click.echo(f"{name:<24}  {summary}")
