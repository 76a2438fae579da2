"""What the command line shows: the table of a report (stdout) and progress (stderr).

On a terminal both are drawn with rich; in a pipe they are plain lines.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from eval.report.report import Report, Section
from eval.report.table import Cell, Column, main_table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

__all__ = ["ProgressDisplay", "plain_table", "print_results", "results_tables", "section_text"]


def _arrow(column: Column) -> str:
    return "→" if column.better == "oracle" else column.arrow


def _text(cell: Cell, column: Column) -> str:
    if cell.text == "not comparable":
        return "n. comp."
    statistic = next((part for part in cell.detail.split(", ") if part.startswith("D ")), "")
    if column.key == "forget_quality" and statistic:
        return f"{cell.text} ({statistic[2:]})"
    return cell.text


def _grid(report: Report) -> tuple[list[tuple[str, str]], list[list[str]], list[list[bool]]]:
    """Return headings with their arrows, texts and, for each text, whether it is the best of its column."""
    columns, rows = main_table(report)
    head = [("method", ""), ("kind", ""), *((column.short, _arrow(column)) for column in columns)]
    texts = [
        [row.run.method, row.run.kind, *(_text(c, col) for c, col in zip(row.cells, columns, strict=True))]
        for row in rows
    ]
    best = [[False, False, *(cell.is_best for cell in row.cells)] for row in rows]
    return head, texts, best


def results_tables(report: Report, width: int) -> list[Table]:
    """Return the main table for a terminal: best cells bold, target and oracle dimmed.

    Args:
        report: What to show.
        width: Characters of a line. Columns that do not fit go to further tables below; no number is cut.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, texts, best = _grid(report)
    _, rows = main_table(report)
    tables = []
    for shown in _column_groups(head, texts, width):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
        for i in shown:
            title, arrow = head[i]
            heading = f"{title}\n{arrow}" if arrow else title
            table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True, overflow="ellipsis")
        for i, row in enumerate(rows):
            cells = [Text(texts[i][c], style="bold green" if best[i][c] else "") for c in shown]
            last_reference = row.role != "method" and i + 1 < len(rows) and rows[i + 1].role == "method"
            table.add_row(*cells, style="" if row.role == "method" else "dim", end_section=last_reference)
        tables.append(table)
    return tables


def _column_groups(
    head: Sequence[tuple[str, str]], texts: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """Cut the columns into tables of at most ``width`` characters, each of which begins with the method."""
    gap, edges = 2, 2
    widths = [max([len(title), *(len(line[i]) for line in texts)]) + gap for i, (title, _) in enumerate(head)]
    groups = [[0]]
    for i in range(1, len(head)):
        is_full = sum(widths[c] for c in groups[-1]) + widths[i] + edges > width
        if is_full and len(groups[-1]) > 1:
            groups.append([0])
        groups[-1].append(i)
    return groups


def plain_table(report: Report) -> str:
    """Return the main table as aligned text; the best cell of a column carries a ``*``."""
    head, texts, best = _grid(report)
    lines = [[title for title, _ in head], [arrow for _, arrow in head]]
    lines += [
        [text + "*" * is_best for text, is_best in zip(row, flags, strict=True)]
        for row, flags in zip(texts, best, strict=True)
    ]
    padded = [
        [cell if i < 2 or cell.endswith("*") else f"{cell} " for i, cell in enumerate(line)] for line in lines
    ]
    widths = [max(len(line[i]) for line in padded) for i in range(len(head))]
    return "\n".join(
        " ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in padded
    )


def section_text(section: Section, *, without: Sequence[str] = ()) -> str:
    """Return a table or list section as aligned text.

    Args:
        section: Of a report.
        without: Columns to leave out where room is scarce.
    """
    if section.type == "list":
        return "\n".join([section.title, *(f"- {item}" for item in section.data["items"])])
    columns = [c for c in section.data["columns"] if c["key"] not in without]
    lines = [[str(c["label"]) for c in columns]]
    lines += [
        ["" if row.get(c["key"]) is None else str(row[c["key"]]) for c in columns]
        for row in section.data["rows"]
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    aligned = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join([section.title, *(line.rstrip() for line in aligned)])


LEGEND = (
    "↑ higher is better, ↓ lower, → nearest to the oracle; quality p (D): Kolmogorov-Smirnov test against "
    "the oracle; n. comp.: not comparable."
)


def print_results(report: Report, file: TextIO | None = None) -> None:
    """Print the main table to ``file`` (default stdout): rich on a terminal, aligned text in a pipe."""
    out = sys.stdout if file is None else file
    if out.isatty():
        from rich.console import Console

        console = Console(file=out)
        for table in results_tables(report, console.width):
            console.print(table)
        console.print(LEGEND, style="dim", highlight=False)
    else:
        print(plain_table(report), file=out)
        print(LEGEND.replace("quality p (D)", "* best; quality p (D)"), file=out)


class ProgressDisplay:
    """Shows progress on stderr: bars on a terminal, one line a stage otherwise. An `eval.types.Progress`.

    Use it as a context manager, so that bars are closed whatever happens::

        with ProgressDisplay() as progress:
            evaluate(lm, benchmark, progress=progress)

    Args:
        file: Where to write; ``None``: stderr as it is when the display starts.
        is_terminal: Whether to draw bars; ``None``: whether ``file`` is a terminal.
        clock: Seconds, for the elapsed time of the plain lines.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        is_terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = sys.stderr if file is None else file
        self.is_terminal = self.file.isatty() if is_terminal is None else is_terminal
        self._clock = clock
        self._start = clock()
        self._last: dict[str, int] = {}
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` steps of the stage ``what`` are finished."""
        with self._lock:
            is_new = what not in self._last or done < self._last[what]
            is_repeated = not is_new and done == self._last[what]
            self._last[what] = done
            if is_repeated:
                return
            if total < 1:
                self._say(what)
                return
            if self.is_terminal:
                self._draw(what, done, total, is_new=is_new)
            elif is_new:
                self._line(f"{what} ({total})" if total > 1 else what)

    def message(self, text: str) -> None:
        """Write one line beside the bars, such as a warning."""
        with self._lock:
            self._say(text)

    def close(self) -> None:
        """Take the bars down; later calls start anew."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars = None
            self._tasks.clear()
            self._last.clear()

    def _say(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        print(f"[{self._clock() - self._start:6.1f} s] {text}", file=self.file, flush=True)

    def _draw(self, what: str, done: int, total: int, *, is_new: bool) -> None:
        if self._bars is None:
            self._bars = _bars(self.file)
            self._bars.start()
        if is_new:
            if what in self._tasks:
                self._bars.remove_task(self._tasks[what])
            self._tasks[what] = self._bars.add_task(_escape(what), total=max(total, 1))
        task = self._tasks[what]
        self._bars.update(task, completed=done, total=max(total, 1))
        if done >= total:  # a finished stage becomes one line above the bars
            seconds = self._bars.tasks[self._bars.task_ids.index(task)].elapsed or 0.0
            self._bars.remove_task(self._tasks.pop(what))
            self._bars.console.print(
                f"{what} ({total}) {seconds:.1f} s", markup=False, style="dim", highlight=False
            )


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _bars(file: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=file, force_terminal=True),
    )
