"""``unlearn report``: look at a finished run again."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout and nothing else.")
@click.option(
    "--export",
    "out",
    type=click.Path(path_type=Path),
    help="Write per-example values instead: .csv, .parquet, .json (one method as TOFU's legacy aggregated log), or "
    "a folder (one method's LUME submission).",
)
def command(run: Path, as_json: bool, out: Path | None) -> None:
    """Print the table of RUN (a run folder or its report.json) and render its pages anew from report.json.

    \b
    unlearn report runs/world-forget05
    unlearn report runs/world-forget05 --export values.csv
    unlearn report runs/world-forget05/npo --export eval_log_aggregated.json
    unlearn report runs/lume/npo --export submission
    """
    if out is not None:
        from eval.report.export import export

        export(run, out)
        click.echo(f"Written: {out}", err=True)
        return
    from eval.report import Report
    from unlearn.cli.options import print_report

    report = Report.load(run)
    folder = run if run.is_dir() else run.parent
    if not as_json:
        report.save(folder)
    print_report(report, as_json, folder)
