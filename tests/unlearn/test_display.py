"""What the command line prints: a table that fits, progress that stays off stdout."""

import io

import pytest

from eval.report import BenchmarkInfo, Report, RunInfo
from unlearn.display import ProgressDisplay, plain_table, print_results, results_tables

METHODS = {
    "target": "none",
    "oracle": "none",
    "graddiff": "weights",
    "npo-rt": "weights",
    "grun-npo": "edit",
    "guard": "suppression",
    "guard-refuse": "suppression",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def report() -> Report:
    results = {
        method: {
            "model_utility": {"value": 0.5 + i / 100, "ci": [0.4, 0.6], "n": 9},
            "forget_Q_A_ROUGE": {"value": 0.9 - i / 10, "ci": None, "n": 80},
            "forget_Q_A_Prob": {"value": 0.00001, "ci": None, "n": 80},
            "forget_truth_ratio": {"value": 0.5, "ci": None, "n": 80},
            "forget_quality": {"value": 3.9e-22, "ci": None, "n": 80, "D": 0.35},
            "leak_rate": {"value": 0.0, "ci": None, "n": 80},
            "extraction_strength": {"value": 0.06, "ci": None, "n": 80},
            "forget_fluency": {"value": 0.92, "ci": None, "n": 80},
        }
        for i, method in enumerate(METHODS)
    }
    results["guard"]["forget_quality"] = {"value": None, "n": 0, "reason": "Not comparable: a filter."}
    runs = [RunInfo(method=m, kind=k, seconds=1234.5) for m, k in METHODS.items()]
    return Report(
        kind="compare", name="r", created="", benchmark=BenchmarkInfo(name="b"), runs=runs, results=results
    )


def test_the_plain_table_is_aligned_and_fits(report):
    lines = plain_table(report).splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in "".join(lines)
    starts = {line.index(kind) for line, kind in zip(lines[2:], METHODS.values(), strict=True)}
    assert len(starts) == 1
    guard = next(line for line in lines if line.startswith("guard "))
    assert "n. comp." in guard
    assert "3.9e-22 (0.35)" in lines[2]
    assert "0.300*" in lines[-1]  # the lowest ROUGE-L among the methods


@pytest.mark.parametrize(("width", "tables"), [(120, 1), (80, 2), (40, 6)])
def test_the_terminal_table_shows_every_number_at_any_width(report, width, tables):
    from rich.console import Console

    console = Console(file=Terminal(), width=width, force_terminal=True, color_system=None)
    cut = results_tables(report, width)
    for table in cut:
        console.print(table)
    text = console.file.getvalue()
    assert len(cut) == tables
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "3.9e-22 (0.35)" in text
    assert text.count("guard-refuse") == tables  # each begins with the method
    assert text.count("extract") == text.count("seconds") == 1


def test_a_pipe_gets_plain_text_and_a_terminal_gets_rich(report, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    pipe, terminal = io.StringIO(), Terminal()
    print_results(report, pipe)
    print_results(report, terminal)
    assert pipe.getvalue().startswith(plain_table(report))
    assert "─" in terminal.getvalue()


def test_plain_progress_is_one_line_a_stage():
    out = io.StringIO()
    ticks = iter([0.0, 1.0, 7.5, 9.0, 11.0])
    with ProgressDisplay(out, clock=lambda: next(ticks)) as progress:
        for done in range(4):
            progress("npo: train", done, 3)
        progress("npo: evaluate", 0, 0)
        progress.message("a warning")
        progress("npo: train", 0, 3)  # a stage that starts again is told again
    assert out.getvalue().splitlines() == [
        "[   1.0 s] npo: train (3)",
        "[   7.5 s] npo: evaluate",
        "[   9.0 s] a warning",
        "[  11.0 s] npo: train (3)",
    ]


def test_progress_goes_to_stderr(capsys):
    with ProgressDisplay() as progress:
        progress("score", 0, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "score (2)" in captured.err


def test_bars_are_taken_down_even_after_an_error():
    out = Terminal()

    def work() -> None:
        with ProgressDisplay(out) as progress:
            progress("[bold]train", 1, 4)
            progress("load", 2, 2)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        work()
    assert "[bold]train" in out.getvalue()
    assert "load (2)" in out.getvalue()
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is visible again
