import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from eval.models import load
from eval.types import Example
from finetune_baselines import RECIPES, TrainRows, TrainSettings, encode_rows, run_training
from finetune_baselines.objective import RecipeObjective

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
lm = load(folder / "model", device="cpu")
texts = json.loads((folder / "rows.json").read_text())
rows = [Example(id=str(i), question=question, answer=answer) for i, (question, answer) in enumerate(texts)]
forget, retain = rows[:4], rows[4:]
gold = encode_rows(lm, forget, [r.answer for r in forget], reference=lm)
kept = encode_rows(lm, retain, [r.answer for r in retain])
settings = TrainSettings(learning_rate=1e-3, epochs=3, batch_size=4, warmup_epochs=0.0, schedule="constant")
data = TrainRows(forget=[(row,) for row in gold], retain=kept)
result = run_training(lm, RecipeObjective(RECIPES["npo-rt"]), data, settings)
if os.environ.get("RANK", "0") == "0":
    with open(out, "w") as file:
        json.dump([dict(entry) for entry in result.history], file)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _history(command, folder, name):
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*command, str(folder / "script.py"), str(folder), str(folder / name)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_two_processes_train_as_one_does(tiny_lm, examples, tmp_path):
    """T11: partners, shares of the loss and logged terms do not depend on the number of processes."""
    tiny_lm.save(tmp_path / "model")
    rows = [[row.question, row.answer + " Yes." * i] for i, row in enumerate(examples)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={_free_port()}",
    ]
    one = _history([sys.executable], tmp_path, "one.json")
    two = _history(launcher, tmp_path, "two.json")
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        assert first["terms"] == pytest.approx(second["terms"], rel=1e-4)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-3)
