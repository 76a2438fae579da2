"""LUME's real rows: a model that knows them by heart, one that never saw the forget part, and one that unlearned it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = ("Task1", "Task2", "Task3")
PEOPLE = 3


@pytest.fixture
def some_rows(shared_data: Path, tmp_path: Path) -> Path:
    """The first stories, people and biographies of each part, with all their rows."""
    folder = tmp_path / "lume"
    folder.mkdir()
    for part in ("forget", "retain"):
        kept: list[str] = []
        seen: dict[str, list[str]] = {task: [] for task in TASKS}
        for line in (shared_data / "lume" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            about, others = row["id"][:-3], seen[row["task"]]
            if about not in others and len(others) < PEOPLE:
                others.append(about)
            if about in others:
                kept.append(line)
        (folder / f"{part}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_score_tells_memory_from_ignorance_and_follows_unlearning(
    some_rows: Path, tmp_path: Path
) -> None:
    unlearn, run = str(Path(sys.executable).parent / "unlearn"), tmp_path / "run"

    def call(*arguments: object) -> str:
        environment = {**os.environ, "UNLEARN_CACHE": str(tmp_path / "cache")}
        command = [unlearn, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    flags = (
        "--benchmark",
        "lume",
        "--data-dir",
        some_rows,
        "--model",
        "scratch:tiny",
        "--methods",
        "graddiff",
    )
    report = json.loads(call("compare", *flags, "--eval-every", 5, "--output-dir", run, "--json"))
    scores = {who: found["lume_task_aggregate"]["value"] for who, found in report["results"].items()}
    assert scores["target"] < 0.05  # everything forgotten is still there
    assert scores["oracle"] > 0.9
    knows, unlearned = report["results"]["target"], report["results"]["graddiff"]
    six = [f"forget_{task}_{kind}" for task in TASKS for kind in ("regurgitation", "knowledge")]
    # the aggregate is a harmonic mean: one group that a handful of rows leaves as it was keeps it at 0
    assert sum(unlearned[name]["value"] for name in six) < sum(knows[name]["value"] for name in six) - 0.6
    for part in ("forget", "retain"):
        for task in TASKS:
            assert knows[f"{part}_{task}_regurgitation"]["value"] > 0.8
            assert knows[f"{part}_{task}_knowledge"]["value"] > 0.8
    assert knows["lume_final_score"]["value"] is None  # LUME's repository has no membership documents

    drawn = {section["id"]: section["data"] for section in report["sections"]}
    (line,) = drawn["dynamics-lume-task-aggregate"]["lines"]
    assert line["x"][0] == 0
    assert line["y"][0] < 0.05
    twelve = [name for name in drawn if name.startswith(("dynamics-forget-Task", "dynamics-retain-Task"))]
    assert len(twelve) == 12
    curves = [drawn[name]["lines"][0]["y"] for name in twelve if name.startswith("dynamics-forget")]
    assert sum(curve[-1] for curve in curves) < sum(curve[0] for curve in curves) - 0.6

    call("report", run / "graddiff", "--export", tmp_path / "submission")
    results = json.loads((tmp_path / "submission" / "evaluation_results.jsonl").read_text())
    assert results["harmonic-mean-task-aggregate"] == pytest.approx(scores["graddiff"])
    assert results["aggregate-score"] == -1
    again = json.loads(call("metrics", "recompute", tmp_path / "submission"))
    assert again["lume_task_aggregate"] == pytest.approx(scores["graddiff"])
