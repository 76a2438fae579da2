"""A comparison that dies while it evaluates goes on at the example it had reached, whatever the method changes."""

import json

import pytest

from eval.models import batching
from eval.partial import Partial

METHODS = "graddiff,grun-gd,guard"


class PowerCutError(Exception):
    """What stands for a kill within one process."""


@pytest.mark.slow
def test_no_batch_of_an_interrupted_comparison_is_computed_twice(run, project, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "LOGITS_BYTES", 4 * 400 * 100)
    kept: list[str] = []
    dies_at: set[int] = set()
    put = Partial.put

    def put_or_die(self, batch, values):
        put(self, batch, values)
        kept.append(f"{self.directory.parent.name} {batch}")
        if len(kept) in dies_at:
            raise PowerCutError

    monkeypatch.setattr(Partial, "put", put_or_die)

    def compare(folder):
        return run("compare", *project.flags, "--methods", METHODS, "--set", "graddiff.epochs=2",
                   "--max-new-tokens", 8, "--output-dir", tmp_path / folder, "--json")  # fmt: skip

    whole = compare("whole")
    assert whole.code == 0, whole.err
    stages = [line.split()[0] for line in kept]
    expected, last = list(kept), {name: len(stages) - stages[::-1].index(name) for name in stages}
    assert list(last) == ["target", *METHODS.split(",")]
    kept.clear()
    dies_at |= {count - 2 for count in last.values()}
    for _ in dies_at:
        with pytest.raises(PowerCutError):
            compare("killed")
    done = compare("killed")
    assert done.code == 0, done.err
    assert kept == expected
    assert json.loads(done.out)["results"] == json.loads(whole.out)["results"]
    assert not list((tmp_path / "killed").rglob("partial*"))
