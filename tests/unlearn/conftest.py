"""The command line in process, and a user's small project: a saved model and two JSON-lines files."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from eval.types import Example


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., Ran]:
    from unlearn.cli import main

    (tmp_path / "cwd").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "cwd")

    def call(*arguments: object) -> Ran:
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@dataclass
class Project:
    model: Path
    forget: Path
    retain: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            "--model",
            str(self.model),
            "--benchmark",
            f"jsonl:{self.forget}",
            "--retain-file",
            str(self.retain),
        )


def write_rows(path: Path, rows: list[Example]) -> Path:
    fields = ("id", "question", "answer", "paraphrased_question", "paraphrased_answer", "key_spans")
    lines = []
    for row in rows:
        value = {name: getattr(row, name) for name in fields}
        lines.append(json.dumps(value | {"perturbed_answer": list(row.perturbed_answers)}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def project(tiny_lm, examples, tmp_path) -> Project:
    tiny_lm.save(tmp_path / "model")
    forget = write_rows(tmp_path / "forget.jsonl", examples[:4])
    retain = write_rows(tmp_path / "retain.jsonl", examples[4:])
    return Project(tmp_path / "model", forget, retain)
