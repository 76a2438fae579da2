"""Real processes, killed in the middle of an evaluation; alone and several together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from eval.models import LanguageModel

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKER = """
import sys, time
from pathlib import Path

from eval.data import load_benchmark
from eval.models import GenerationOptions, LanguageModel, batching, load
from eval.processes import join, num_processes
from eval.runner import evaluate

model, names, out, pause = sys.argv[1:]
batching.LOGITS_BYTES, batching.GENERATED_TOKENS = 2**20, 2**11
lm = load(model, device="cpu", template="qa")
join(lm.device)
score_batch = lm.score_batch

def slowly(rows, *, moments=False):
    print("batch", flush=True)
    time.sleep(float(pause))
    return score_batch(rows, moments=moments)

lm.score_batch = slowly
for name in names.split(","):
    evaluate(
        lm,
        load_benchmark(name),
        options=GenerationOptions(max_new_tokens=16),
        output_dir=Path(out) / name.replace(":", "-"),
        is_spread=num_processes() > 1,
    )
"""


@pytest.fixture
def model(tiny_lm: LanguageModel, tmp_path: Path) -> Path:
    tiny_lm.save(tmp_path / "model")
    return tmp_path / "model"


def start(
    model: Path, names: str, out: Path, *, processes: int = 1, pause: float = 0
) -> subprocess.Popen[str]:
    script = out.parent / "worker.py"
    script.write_text(WORKER)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [
            sys.executable,
            *(launcher if processes > 1 else ()),
            str(script),
            str(model),
            names,
            str(out),
            str(pause),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> int:
    """Wait for the end and return how many batches were scored."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return out.count("batch")


def kill_after(process: subprocess.Popen[str], lines: int, folder: Path) -> None:
    """Kill a process and those it started, with no chance to clean up, once so many examples are on disk."""
    deadline = time.monotonic() + 300
    while sum(path.read_bytes().count(b"\n") for path in folder.glob("*/eval/partial*.jsonl")) < lines:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    whole = psutil.Process(process.pid)
    workers = whole.children(recursive=True)
    for one in (whole, *workers):
        one.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def logs(folder: Path) -> dict[str, dict[str, object]]:
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for path in sorted(folder.glob("*/eval/*_EVAL.json"))
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_goes_on_and_its_log_is_the_same_to_the_last_bit(
    model: Path, tmp_path: Path, processes: int
) -> None:
    name = "world:forget05"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    num_batches = finish(start(model, name, whole, processes=processes))
    assert num_batches >= 20
    kill_after(start(model, name, killed, processes=processes, pause=0.1), 200, killed)
    kept = sum(path.read_bytes().count(b"\n") for path in killed.glob("*/eval/partial*.jsonl"))
    again = finish(start(model, name, killed, processes=processes))
    assert kept >= 200
    assert 0 < again < num_batches
    assert logs(killed) == logs(whole)
    assert not list(killed.glob("*/eval/partial*"))


def test_every_kind_of_benchmark_is_shared_out_among_processes(model: Path, tmp_path: Path) -> None:
    names = "world:forget05,muse:mini,wmdp:mini,tdec:mini,rwku:mini,lume:mini,text:mini"
    one, two = tmp_path / "one", tmp_path / "two"
    alone = finish(start(model, names, one))
    shared = finish(start(model, names, two, processes=2))
    assert shared < 1.3 * alone + 14  # nothing is done twice; shares fill their last batches less
    expected, found = logs(one), logs(two)
    assert len(expected) == len(names.split(","))
    assert expected.keys() == found.keys()
    for file, log in expected.items():
        assert log.keys() == found[file].keys()
        for metric in log:
            compare(log[metric], found[file][metric], f"{file} {metric}")


def compare(expected: object, found: object, where: str) -> None:
    """Numbers may differ by rounding, since batches differ; texts and their scores do not."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert expected.keys() == found.keys(), where
        for key, value in expected.items():
            compare(value, found[key], f"{where} {key}")
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(expected) == len(found), where
        for i, value in enumerate(expected):
            compare(value, found[i], f"{where} {i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), where
    else:
        assert found == expected, where
