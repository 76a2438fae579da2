"""``unlearn metrics``: list, explain, recompute."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]

JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
)


@click.group("metrics", invoke_without_command=True)
@JSON
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List and explain metrics, or recompute a published log.

    \b
    unlearn metrics                              the list
    unlearn metrics explain forget_quality
    unlearn metrics recompute TOFU_EVAL.json --reference RETAIN/TOFU_EVAL.json
    unlearn metrics paired runs/mine/npo runs/mine/guard     within the noise?
    """
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from eval.metrics import METRICS_INFO
    from unlearn.cli.options import print_json

    if as_json:
        print_json([asdict(info) for info in METRICS_INFO.values()])
        return
    width = max(map(len, METRICS_INFO))
    for name, info in METRICS_INFO.items():
        click.echo(f"{name:<{width}}  {info.measures}")


@command.command("explain")
@click.argument("name")
@JSON
def explain(name: str, as_json: bool) -> None:
    """Say what metric NAME measures, which direction is good, its floor and ceiling, and its traps."""
    from dataclasses import asdict

    from eval.errors import UnknownNameError
    from eval.metrics import METRICS_INFO
    from unlearn.cli.options import print_json

    if name not in METRICS_INFO:
        raise UnknownNameError("metric", name, METRICS_INFO)
    info = asdict(METRICS_INFO[name])
    if as_json:
        print_json(info)
        return
    for field, value in info.items():
        if not value:
            continue
        text = "\n  - ".join(["", *map(str, value)]) if isinstance(value, (list, tuple)) else str(value)
        click.echo(f"{field}: {text}")


@command.command("recompute")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--reference", type=click.Path(path_type=Path), help="The retain model's log: forget quality, PrivLeak."
)
@click.option("--json", "as_json", is_flag=True, help="Accepted for symmetry: the output is always JSON.")
def recompute_command(log: Path, reference: Path | None, as_json: bool) -> None:
    """Recompute every aggregate of LOG from its per-item values and print ``{metric: value}``.

    LOG is an OpenUnlearning *_EVAL.json, a TOFU legacy aggregated log, a folder with a LUME submission, or a
    run folder of ours.
    """
    from eval.metrics.recompute import recompute
    from unlearn.cli.options import print_json

    print_json(recompute(log, reference))


@command.command("paired")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Repeatable; default: every mean over rows that both logs hold, and model utility.",
)
@click.option("--seed", type=int, default=0, help="Of exchanges and resamples (default 0).")
@click.option("--json", "as_json", is_flag=True, help="Accepted for symmetry: the output is always JSON.")
def paired_command(first: Path, second: Path, metrics: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Test whether the models of two logs differ on the same questions, and print FIRST minus SECOND.

    \b
    unlearn metrics paired runs/a/npo runs/a/guard --metric forget_Q_A_ROUGE

    ``is_noise`` says that these questions cannot tell the two apart (p >= 0.05, randomization test, paired by row).
    """
    from eval.metrics.paired import paired_logs
    from eval.report.open_unlearning import read_log
    from unlearn.cli.options import print_json

    print_json(paired_logs(read_log(first), read_log(second), metrics, seed=seed))
