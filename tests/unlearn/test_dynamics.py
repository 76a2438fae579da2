"""``--eval-every``: values along the steps in the run's folder and in the page, the best step, several processes."""

import json

import pytest

from eval.data import load_benchmark
from eval.errors import ConfigError
from eval.metrics.composites import LUME_TERMS
from unlearn.dynamics import balance, dynamics_monitor, sampled


@pytest.fixture
def compared(run, project, tmp_path):
    ran = run("compare", *project.flags, "--oracle", project.model, "--methods", "graddiff,guard", "--set",
              "graddiff.epochs=4", "--eval-every", 2, "--max-new-tokens", 8, "--output-dir", tmp_path / "run",
              "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    return ran, tmp_path / "run"


def test_values_are_kept_per_step_and_drawn_for_methods_that_train(compared, run):
    ran, folder = compared
    records = [json.loads(line) for line in (folder / "graddiff" / "dynamics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2, 4]
    assert not (folder / "guard" / "dynamics.jsonl").exists()
    sections = {section["id"]: section for section in json.loads(ran.out)["sections"]}
    lines = sections["dynamics-forget"]["data"]["lines"]
    assert [line["name"] for line in lines] == ["graddiff"]
    assert lines[0]["x"] == [0, 2, 4]
    assert lines[0]["y"] == [record["values"]["forget_Q_A_Prob"] for record in records]
    assert "at most 24 questions" in sections["dynamics-forget"]["caption"]
    assert {"dynamics-rouge", "dynamics-truth-ratio", "dynamics-retain", "dynamics-values"} <= set(sections)
    assert "optimizer steps" in (folder / "report.html").read_text()


def test_every_value_along_the_way_can_be_recomputed(compared, run):
    _, folder = compared
    record = json.loads((folder / "graddiff" / "dynamics.jsonl").read_text().splitlines()[1])
    again = run(
        "metrics", "recompute", folder / "graddiff" / "dynamics" / "step-000002" / "eval" / "TOFU_EVAL.json"
    )
    recomputed = json.loads(again.out)
    for name in ("forget_Q_A_Prob", "forget_Q_A_ROUGE", "forget_truth_ratio"):
        assert recomputed[name] == pytest.approx(record["values"][name], rel=1e-9)


def test_without_the_flag_nothing_is_measured_or_drawn(run, project, tmp_path):
    ran = run("compare", *project.flags, "--methods", "graddiff", "--set", "epochs=1", "--max-new-tokens", 4,
              "--output-dir", tmp_path / "run", "--json")  # fmt: skip
    assert not any(section["id"].startswith("dynamics") for section in json.loads(ran.out)["sections"])
    assert not (tmp_path / "run" / "graddiff" / "dynamics.jsonl").exists()


def test_train_returns_the_best_step_and_stops_early(run, project, tmp_path):
    ran = run("train", "ga", *project.flags, "--set", "epochs=8", "--set", "max_forget_loss=null", "--set",
              "learning_rate=0.005", "--eval-every", 1, "--best-by", "forget_Q_A_Prob", "--patience", 2,
              "--output-dir", tmp_path / "run", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    training = json.loads((tmp_path / "run" / "ga" / "finetune.json").read_text())["training"]
    assert (training["best_step"], training["steps"]) == (0, 2)  # ascent only lowers it
    assert "has not improved in 2 evaluations" in training["stopped"]


def test_what_makes_no_sense_is_refused(run, project):
    ran = run("train", "ga", *project.flags, "--best-by", "balance")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--eval-every" in ran.err
    ran = run("compare", *project.flags, "--eval-every", 0)
    assert ran.code == 2
    with pytest.raises(ConfigError, match="needs a criterion"):
        dynamics_monitor(load_benchmark("world:forget01"), 5, patience=2)


def test_the_sample_is_the_same_every_time_and_never_larger_than_asked():
    benchmark = load_benchmark("world:forget05")
    first, again = sampled(benchmark, 7), sampled(benchmark, 7)
    assert first.splits == again.splits
    assert {len(rows) for rows in first.splits.values()} == {7}
    assert "holdout" not in first.splits
    assert all(set(rows) <= set(benchmark.splits[name]) for name, rows in first.splits.items())


def test_lumes_final_score_is_measured_along_the_way(tiny_lm, monkeypatch):
    monkeypatch.setattr("unlearn.dynamics.NEW_TOKENS", 2)
    values = dynamics_monitor(load_benchmark("lume:mini"), 5).measure(tiny_lm, 5, None)
    parts = ("lume_task_aggregate", "lume_mia_score", "mmlu_acc")
    assert values["lume_final_score"] == pytest.approx(sum(values[name] for name in parts) / 3)
    assert set(LUME_TERMS) <= set(values)
    assert "mia_gradnorm" not in values  # a backward pass for every row, and nothing is drawn from it


def test_balance_is_the_harmonic_mean_of_what_is_kept_and_what_is_forgotten():
    assert balance({"model_utility": 0.6, "forget_Q_A_ROUGE": 0.6}) == pytest.approx(0.48)  # 2*.6*.4/(.6+.4)
    assert balance({"model_utility": 0.6, "forget_Q_A_ROUGE": 1.0}) == 0.0
    assert balance({"model_utility": None, "forget_Q_A_ROUGE": 0.3}) is None
    assert balance({"lume_task_aggregate": 0.25}) == 0.25
