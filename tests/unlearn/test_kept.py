"""What a run folder keeps: each part is made anew when something it depends on has changed, and only then."""

import importlib.metadata
import json

import pytest

from finetune_baselines.method import FineTuning
from grun.method import Grun
from guard.method import GuardMethod

METHODS = "graddiff,grun-gd,guard"
QUICK = ("graddiff.epochs=1", "grun-gd.epochs=1", "grun-gd.min_steps=1", "grun-gd.gate_fit_steps=5")


@pytest.fixture
def compare(run, project, tmp_path):
    """Run the comparison; return its report, what it said, and which models and rows it made."""
    folder = tmp_path / "run"
    stamps = {}

    def call(*flags, methods=METHODS):
        flags = flags or ("--max-new-tokens", 4)
        quick = [f"--set={pair}" for pair in QUICK if pair.partition(".")[0] in methods]
        ran = run(
            "compare", *project.flags, *quick, "--methods", methods, *flags, "--output-dir", folder, "--json"
        )
        assert ran.code == 0, ran.err
        made = {"trained": [], "result": []}
        for path in sorted(folder.glob("*/*.json")):
            if path.stem in made and stamps.get(path) != path.stat().st_mtime_ns:
                stamps[path] = path.stat().st_mtime_ns
                made[path.stem].append(path.parent.name)
        return json.loads(ran.out), ran.err, made

    call.folder = folder
    return call


@pytest.fixture
def upgrade(monkeypatch):
    """Pretend that other versions of packages are installed."""
    real = importlib.metadata.version

    def call(**versions):
        named = {name.replace("_", "-"): version for name, version in versions.items()}
        for module in ("unlearn.runs", "unlearn.stages"):
            monkeypatch.setattr(f"{module}.version", lambda name: named.get(name) or real(name))

    return call


@pytest.mark.parametrize(
    ("method", "kind", "key"),
    [
        ("graddiff", FineTuning, "learning_rate"),
        ("grun-gd", Grun, "rank"),
        ("guard", GuardMethod, "num_neighbours"),
    ],
)
def test_another_preset_in_the_code_makes_the_row_anew(compare, monkeypatch, method, kind, key):
    compare()
    settings = kind.settings
    monkeypatch.setattr(kind, "settings", lambda self, target: {**settings(self, target), key: 7})
    report, _, made = compare()
    assert made == {"trained": [method], "result": [method]}
    row = next(row for row in report["runs"] if row["method"] == method)
    assert row["settings"][key] == 7
    assert compare()[2] == {"trained": [], "result": []}


def test_longer_answers_are_measured_without_training_again(compare):
    first, _, made = compare("--max-new-tokens", 4)
    assert made == {"trained": METHODS.split(","), "result": [*METHODS.split(","), "target"]}
    longer, _, made = compare("--max-new-tokens", 6)
    assert made == {"trained": [], "result": [*METHODS.split(","), "target"]}
    assert [row["seconds"] for row in longer["runs"]] == [row["seconds"] for row in first["runs"]]
    for name in METHODS.split(","):  # what does not depend on the answers' length, of the loaded model
        assert longer["results"][name]["forget_Q_A_Prob"] == first["results"][name]["forget_Q_A_Prob"]


def test_an_upgrade_measures_again_and_says_what_older_versions_trained(compare, upgrade):
    before, _, _ = compare(methods="guard")
    assert [row["notes"] for row in before["runs"]] == [[], []]
    upgrade(unlearn_toolkit="99.0")
    report, said, made = compare(methods="guard")
    assert made == {"trained": [], "result": ["guard", "target"]}
    target, guard = (row["notes"] for row in report["runs"])
    assert target == []
    assert len(guard) == 1
    assert guard[0].startswith("Trained with unlearn-toolkit ")
    assert "(now 99.0)" in guard[0]
    assert f"guard: {guard[0]}" in said
    upgrade(unlearn_toolkit="99.0", torch="98.0")
    report, _, made = compare(methods="guard")
    assert made == {"trained": [], "result": []}
    target, guard = (row["notes"] for row in report["runs"])
    assert [note.partition(" with ")[0] for note in guard] == ["Trained", "Measured"]
    assert [note.partition(" with ")[0] for note in target] == ["Measured"]


def test_a_model_that_was_thrown_away_is_made_again_when_it_is_needed(compare):
    compare(methods="graddiff")
    weights = next(compare.folder.glob("graddiff/*/*.safetensors"))
    weights.unlink()
    assert compare(methods="graddiff")[2] == {"trained": [], "result": []}
    _, said, made = compare("--max-new-tokens", 6, methods="graddiff")
    assert made == {"trained": ["graddiff"], "result": ["graddiff", "target"]}
    assert "unlearning again" in said
    assert weights.name in said
    assert weights.is_file()
