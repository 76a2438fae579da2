"""The documents are true: the reference is what the code says, and every command in them runs."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eval.report import BenchmarkInfo, Report, now

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LISTED = {"demo", "test", "test-slow", "test-all", "check", "bench", "format", "docs", "install", "clean"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def shell_lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            joined = re.sub(r"\\\n\s*", " ", block)
            found += [
                (page.name, line.strip()) for line in joined.splitlines() if line.strip() and line[0] != "#"
            ]
    return found


def _script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says():
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert _script("write_docs").reference() == written, "run `make docs` and commit docs/reference.md"


@pytest.mark.parametrize(("page", "line"), shell_lines(), ids=lambda v: v[:60])
def test_every_command_parses(page, line):
    """Every command in the pages is one of ours, with flags that exist; the slow tier runs them."""
    import click

    from unlearn.cli import cli

    words = [w for w in shlex.split(line, comments=True) if "=" not in w or w.startswith("-")]
    if words[0] in ("make", "git", "cd", "pip"):
        if words[0] == "make":
            assert set(words[1:]) <= LISTED
        return
    assert words[0] == "unlearn", f"{page}: {line!r} is not a command of ours"
    words = shlex.split(line, comments=True)
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None, f"{page}: no command {words[1]!r}"
    command.make_context(words[1], words[2:], resilient_parsing=False)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_snippets_run(page, tmp_path, tiny_lm):
    """All Python blocks of a page run in order, as one script, in a folder with a small model and a small run."""
    snippets = blocks(page, "python")
    if not snippets:
        pytest.skip("the page has no Python block")
    tiny_lm.save(tmp_path / "path" / "to" / "model")
    report = Report(kind="compare", name="run", created=now(), benchmark=BenchmarkInfo(name="world:forget05"))
    report.save(tmp_path / "runs" / "world-forget05")
    script = tmp_path / "page.py"
    script.write_text("\n".join(snippets), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
