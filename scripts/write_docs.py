"""Write `docs/reference.md`: every command's help, every method, metric and benchmark, and the public API."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
API = ("eval.models", "eval.data", "finetune_baselines", "grun", "guard", "unlearn")


def commands() -> list[str]:
    from click.testing import CliRunner

    from unlearn.cli import COMMANDS, cli

    runner = CliRunner()
    out = ["## Commands", ""]
    for name in COMMANDS:
        text = runner.invoke(cli, [name, "--help"], prog_name="unlearn", terminal_width=110).output.strip()
        out += [f"### `unlearn {name}`", "", "```text", text, "```", ""]
    return out


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    from eval.report.markdown import markdown_table

    return [markdown_table(head, rows), ""]


def methods() -> list[str]:
    from unlearn.methods import make_method, method_names

    rows = [[m.name, m.kind, m.summary, m.paper] for m in map(make_method, method_names())]
    return ["## Methods", "", *table(["name", "changes", "what it does", "source"], rows)]


def metrics() -> list[str]:
    from eval.metrics import METRICS_INFO

    rows = [[name, info.measures, info.direction] for name, info in METRICS_INFO.items()]
    return [
        "## Metrics",
        "",
        "`unlearn metrics explain NAME` says more.",
        "",
        *table(["name", "measures", "better"], rows),
    ]


def benchmarks() -> list[str]:
    from unlearn.cli.benchmarks import BENCHMARK_FAMILIES

    return ["## Benchmarks", "", *table(["name", "what it is"], [list(row) for row in BENCHMARK_FAMILIES])]


def first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def signature(thing: Any) -> str:
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def api() -> list[str]:
    out = ["## Python", ""]
    for name in API:
        module = importlib.import_module(name)
        out += [f"### `{name}`", "", first_line(module), ""]
        for public in sorted(module.__all__):
            thing = getattr(module, public)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                out += [
                    f"- **`{public}{signature(thing) if inspect.isfunction(thing) else ''}`**: {first_line(thing)}"
                ]
        out.append("")
    return out


def reference() -> str:
    head = ["# Reference", "", "Written by `make docs` from the code; a test keeps the two together.", ""]
    parts = [*head, *commands(), *methods(), *metrics(), *benchmarks(), *api()]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        text = reference()
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET.name}", file=sys.stderr)
