"""The main table: which columns, how a number is written, which cell is best; shared by every renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval.report.report import Report, RunInfo
from eval.report.yardsticks import KEPT, kept

__all__ = [
    "CHANGES",
    "COLUMNS",
    "Cell",
    "Column",
    "Row",
    "benchmark_columns",
    "format_number",
    "format_p",
    "format_seconds",
    "main_table",
    "role",
]

CHANGES: Mapping[str, str] = {
    "none": "nothing",
    "suppression": "suppresses output",
    "edit": "edits hidden states",
    "weights": "trains weights",
}
"""What a method of each kind changes: a filter suppresses, an adapter edits, training changes weights."""

Better = Literal["up", "down", "oracle"] | None
Role = Literal["before", "reference", "method"]

ARROWS: Mapping[Better, str] = {"up": "↑", "down": "↓", "oracle": "→ oracle", None: ""}
HINTS: Mapping[Better, str] = {
    "up": "Higher is better.",
    "down": "Lower is better.",
    "oracle": "Closest to the oracle is best.",
    None: "",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the main table."""

    key: str
    """Metric name in ``results``, or a field of `RunInfo`."""
    label: str
    short: str
    """The label where room is scarce (a terminal)."""
    better: Better = None
    explain: str = ""

    @property
    def arrow(self) -> str:
        """``↑`` (higher is better), ``↓``, ``→ oracle`` or nothing."""
        return ARROWS[self.better]

    @property
    def tooltip(self) -> str:
        """What the column measures and which direction is better."""
        return f"{self.explain} {HINTS[self.better]}".strip()


COLUMNS: tuple[Column, ...] = (
    Column(
        key="model_utility",
        label="Model utility",
        short="utility",
        better="up",
        explain="Harmonic mean of nine scores (probability, ROUGE-L, truth ratio) on what must be kept: "
        "retain questions, well-known people, world facts.",
    ),
    Column(
        key="retain_Q_A_ROUGE",
        label="Retain ROUGE-L",
        short="retain",
        better="up",
        explain="Share of the gold answer's words that the model's own answers to retain questions repeat, in order: "
        "what was kept, on data without what model utility asks.",
    ),
    Column(
        key="forget_Q_A_ROUGE",
        label="Forget ROUGE-L",
        short="ROUGE-L",
        better="down",
        explain="Share of the forgotten gold answer's words that the model's own answer repeats, in order. "
        "The oracle, which never saw the answers, shows the level that guessing reaches.",
    ),
    Column(
        key="forget_Q_A_Prob",
        label="Forget probability",
        short="prob",
        better="down",
        explain="Probability of the forgotten gold answer, per token (geometric mean).",
    ),
    Column(
        key="forget_truth_ratio",
        label="Truth ratio",
        short="truth r.",
        better="oracle",
        explain="How likely wrong answers are beside the right one, folded so that 1 means indifference.",
    ),
    Column(
        key="forget_quality",
        label="Forget quality p",
        short="quality p (D)",
        better="up",
        explain="Two-sample Kolmogorov-Smirnov test of the truth ratios against the oracle's: above 0.05 "
        "the two cannot be told apart. D is the largest gap between the two distributions.",
    ),
    Column(
        key="leak_rate",
        label="Leak rate",
        short="leaks",
        better="down",
        explain="Share of answers that contain a key span (a name, date or place that was to be forgotten).",
    ),
    Column(
        key="extraction_strength",
        label="Extraction strength",
        short="extract",
        better="down",
        explain="Share of the gold answer that the model completes by itself once the rest is given.",
    ),
    Column(
        key="forget_fluency",
        label="Fluency",
        short="fluency",
        explain="Variety of the words in answers to forgotten questions (entropy of word pairs and triples, bits): "
        "0 for one word repeated. Compare with target and oracle: far below is gibberish or a short refusal.",
    ),
    Column(
        key="seconds",
        label="Seconds",
        short="seconds",
        better="down",
        explain="Time to unlearn (target and oracle: time to teach).",
    ),
)
"""The main table's columns, in order; one without any number is left out."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number as it is shown."""

    text: str
    detail: str = ""
    """Small print: an interval or a statistic."""
    title: str = ""
    """What a reader sees on hover."""
    value: float | None = None
    is_best: bool = False
    is_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of the main table."""

    run: RunInfo
    role: Role
    changes: str
    cells: tuple[Cell, ...]
    """Parallel to the table's columns."""


def role(method: str) -> Role:
    """Return what a row stands for: ``before`` (the target), ``reference`` (the oracle) or ``method``."""
    roles: dict[str, Role] = {"target": "before", "oracle": "reference"}
    return roles.get(method, "method")


def format_number(value: float | None) -> str:
    """Write a score with three decimals, or more briefly where it is large; ``–`` for null."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def format_p(value: float | None) -> str:
    """Write a p-value: three decimals, or ``3.9e-22`` below a thousandth."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}" if value else "0"


def format_seconds(value: float | None) -> str:
    """Write a duration in seconds, with a decimal below 100 s."""
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _brief(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


_FORMATS: Mapping[str, Callable[[float | None], str]] = {
    "forget_quality": format_p,
    "seconds": format_seconds,
}


def _metric_cell(column: Column, result: Mapping[str, Any]) -> Cell:
    value, reason = result.get("value"), result.get("reason")
    if reason and (value is None or "not comparable" in reason.lower()):
        text = "not comparable" if "not comparable" in reason.lower() else "–"
        return Cell(text=text, title=reason, is_missing=True)
    if value is None:
        return Cell(text="–", title="Not measured.", is_missing=True)
    write = _FORMATS.get(column.key, format_number)
    details, titles = [], []
    if result.get("D") is not None:
        details.append(f"D {result['D']:.2f}")
    if result.get("sd") is not None:
        details.append(f"± {_brief(result['sd'])}")
        titles.append(f"mean of {len(result['by_seed'])} seeds, sd {write(result['sd'])}")
    ci = result.get("ci")
    if ci:
        details.append(f"{_brief(ci[0])}–{_brief(ci[1])}")
        titles.append(f"95 % interval {write(ci[0])} to {write(ci[1])}")
    if result.get("n"):
        titles.append(f"n = {result['n']}")
    if reason:
        titles.append(reason)
    return Cell(text=write(value), detail=", ".join(details), title="; ".join(titles), value=value)


def _field_cell(column: Column, run: RunInfo) -> Cell:
    value = getattr(run, column.key)
    if value is None:
        return Cell(text="–", title="Not measured.", is_missing=True)
    return Cell(text=_FORMATS.get(column.key, format_number)(value), value=value)


def _best(column: Column, rows: Sequence[Row], index: int) -> float | None:
    """Return the column's best value among the methods; ``None`` where it singles out no minority of them."""
    values = [r.cells[index].value for r in rows if r.role == "method"]
    present = [v for v in values if v is not None]
    if column.better is None or len(present) < 2:
        return None
    if column.better == "oracle":
        oracle = next((r.cells[index].value for r in rows if r.role == "reference"), None)
        best = None if oracle is None else min(present, key=lambda v: abs(v - oracle))
    else:
        best = max(present) if column.better == "up" else min(present)
    return None if best is None or 2 * present.count(best) > len(present) else best


def benchmark_columns(report: Report) -> tuple[Column, ...]:
    """Return the columns that a benchmark other than TOFU's kind opens, as its metrics' descriptions say.

    ``unlearn metrics explain`` and the table read the same description; a name that stands for several metrics
    (``wmdp_*_acc``) opens a column for each, labelled by what the star stands for.
    """
    from eval.metrics.info import METRICS_INFO
    from eval.metrics.info.questions import QUESTIONS

    measured = dict.fromkeys(name for results in report.results.values() for name in results)
    if "model_utility" in measured:
        return ()
    directions: dict[str, Better] = {"higher": "up", "lower": "down", "retain model": "oracle"}
    standing = {column.key for column in COLUMNS}
    order, found = list(METRICS_INFO), []
    for name in measured:
        info = METRICS_INFO.get(name)
        if info is not None and info.column and name not in standing:
            star = name.removeprefix(info.name.partition("*")[0]).removesuffix(info.name.partition("*")[2])
            label = f"{info.column} {star}" if "*" in info.name else info.column
            column = Column(
                key=name,
                label=label,
                short=label,
                better=directions.get(info.direction),
                explain=info.measures,
            )
            found.append((info in QUESTIONS, order.index(info.name), name, column))
    return tuple(column for *_, column in sorted(found, key=lambda each: each[:3]))


def main_table(report: Report) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """Return the columns that hold at least one number, and a row for each run.

    The best cell of each column is marked among the methods only; target and oracle are no contestants.
    """
    run_fields = {"seconds"}
    by_kept = {yardstick.metric for yardstick in KEPT} - {getattr(kept(report.results), "metric", None)}
    columns = (*benchmark_columns(report), *(column for column in COLUMNS if column.key not in by_kept))
    rows = [
        Row(
            run=run,
            role=role(run.method),
            changes=CHANGES.get(run.kind, run.kind),
            cells=tuple(
                _field_cell(c, run)
                if c.key in run_fields
                else _metric_cell(c, report.metric(run.method, c.key))
                for c in columns
            ),
        )
        for run in report.runs
    ]
    shown = [i for i in range(len(columns)) if any(row.cells[i].value is not None for row in rows)]
    best = {i: _best(columns[i], rows, i) for i in shown}
    marked = tuple(
        Row(
            run=row.run,
            role=row.role,
            changes=row.changes,
            cells=tuple(_mark(row.cells[i], row.role, best[i]) for i in shown),
        )
        for row in rows
    )
    return tuple(columns[i] for i in shown), marked


def _mark(cell: Cell, of_role: Role, best: float | None) -> Cell:
    if of_role != "method" or best is None or cell.value is None or cell.value != best:
        return cell
    return Cell(text=cell.text, detail=cell.detail, title=cell.title, value=cell.value, is_best=True)
