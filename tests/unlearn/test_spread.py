"""Evaluation spread over processes: the numbers of one process, written once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.processes import spread

ROOT = Path(__file__).resolve().parents[2]


def _evaluate(project, folder, *launcher):
    command = [sys.executable, *launcher, "-m", "unlearn", "evaluate", *project.flags,
               "--holdout", project.retain, "--max-new-tokens", 8, "--output-dir", folder, "--json"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_one_process_does_everything():
    assert spread([3, 1, 2], lambda items: [item * 10 for item in items]) == [30, 10, 20]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(project, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    one = _evaluate(project, tmp_path / "one")["results"]["model"]
    two = _evaluate(project, tmp_path / "two", *launcher)["results"]["model"]
    assert one.keys() == two.keys()
    for name, result in one.items():
        if result["value"] is None:
            assert two[name]["value"] is None, name
        else:
            assert two[name]["value"] == pytest.approx(result["value"], rel=1e-4, abs=1e-6), name
        assert two[name]["n"] == result["n"]
    logs = [json.loads((tmp_path / run / "model/eval/TOFU_EVAL.json").read_text()) for run in ("one", "two")]
    texts = [
        [row["generation"] for row in log["forget_Q_A_ROUGE"]["value_by_index"].values()] for log in logs
    ]
    assert texts[0] == texts[1]
