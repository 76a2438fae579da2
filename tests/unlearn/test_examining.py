"""What a method says about itself afterwards is found out once, and not in the seconds counted as unlearning."""

import json

import pytest

from grun.method import Grun
from unlearn.measure import Measure

QUICK = [f"--set=grun-gd.{setting}" for setting in ("epochs=1", "min_steps=1", "gate_fit_steps=5")]


@pytest.fixture
def events(monkeypatch):
    """What happened, in order: the end of each measured stage, and each reading of gates."""
    seen: list[str] = []

    def noting(what, function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            seen.append(what)
            return result

        return call

    monkeypatch.setattr(Measure, "__exit__", noting("measured", Measure.__exit__))
    monkeypatch.setattr(Grun, "unlearn", noting("unlearned", Grun.unlearn))
    monkeypatch.setattr(Grun, "examine", noting("examined", Grun.examine))
    return seen


def _kinds(folder):
    """Return the kinds of prompts the gates were read on."""
    table = json.loads((folder / "sections.json").read_text())[0]
    return {row["split"] for row in table["data"]["rows"]}


def test_train_reads_the_gates_once_and_after_the_clock(run, project, tmp_path, events):
    ran = run("train", "grun-gd", *project.flags, *QUICK, "--output-dir", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert events == ["unlearned", "measured", "examined"]
    assert {"retain, paraphrased", "forget, unseen wordings"} <= _kinds(tmp_path / "run" / "grun-gd")


def test_compare_reads_the_gates_once_and_after_the_clock(run, project, tmp_path, events):
    ran = run("compare", *project.flags, *QUICK, "--methods", "grun-gd", "--max-new-tokens", 4,
              "--output-dir", tmp_path / "run")  # fmt: skip
    assert ran.code == 0, ran.err
    target, unlearning, evaluating = ["measured"], ["unlearned", "measured"], ["measured"]
    assert events == [*target, *unlearning, "examined", *evaluating]
    assert {"retain, paraphrased", "forget, unseen wordings"} <= _kinds(tmp_path / "run" / "grun-gd")
