"""``unlearn report``: look at a finished run again."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout and nothing else.")
def command(run: Path, as_json: bool) -> None:
    """Print the table of RUN (a run folder or its report.json) and render its pages anew from report.json."""
    from eval.report import Report
    from unlearn.cli.options import print_report

    report = Report.load(run)
    folder = run if run.is_dir() else run.parent
    if not as_json:
        report.save(folder)
    print_report(report, as_json, folder)
