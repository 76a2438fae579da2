"""`unlearn compare` end to end on a user's own small files: every family, resume, traceable numbers, strict stdout."""

import json
from pathlib import Path

import pytest

import unlearn
from eval.data import load_benchmark

METHODS = "graddiff,grun-gd,guard,guard-refuse"


@pytest.fixture
def compared(run, project, tmp_path):
    ran = run("compare", *project.flags, "--oracle", project.model, "--methods", METHODS, "--set", "graddiff.epochs=2",
              "--max-new-tokens", 12, "--output-dir", tmp_path / "run", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    return ran, tmp_path / "run"


def test_compare_prints_its_report_and_leaves_its_files(compared):
    ran, folder = compared
    report = json.loads(ran.out)
    assert report["schema_version"] == 1
    assert list(report["results"]) == ["target", "oracle", *METHODS.split(",")]
    assert report == json.loads((folder / "report.json").read_text())
    for name in ("report.html", "report.md", "README.md", "config.yaml", "environment.json"):
        assert (folder / name).stat().st_size > 0
    kinds = {run["method"]: run["kind"] for run in report["runs"]}
    assert kinds == {
        "target": "none", "oracle": "none", "graddiff": "weights", "grun-gd": "edit",
        "guard": "suppression", "guard-refuse": "suppression",
    }  # fmt: skip
    for row in report["results"].values():
        assert {"value", "ci", "n"} <= set(row["forget_Q_A_ROUGE"])
        assert row["forget_Q_A_ROUGE"]["n"] == 4
    assert 0 <= report["results"]["graddiff"]["forget_quality"]["D"] <= 1
    assert report["results"]["guard-refuse"]["forget_quality"]["value"] is None
    assert "not comparable" in report["results"]["guard"]["forget_quality"]["reason"]
    assert not list(folder.rglob("*.pt")) + list(folder.rglob("*.pkl")) + list(folder.rglob("*.bin"))


def test_every_aggregate_can_be_recomputed(run, compared):
    ran, folder = compared
    results = json.loads(ran.out)["results"]["graddiff"]
    again = run("metrics", "recompute", folder / "graddiff", "--reference", folder / "oracle")
    recomputed = json.loads(again.out)
    for name in (
        "forget_Q_A_Prob",
        "forget_Q_A_ROUGE",
        "forget_truth_ratio",
        "forget_quality",
        "extraction_strength",
    ):
        assert recomputed[name] == pytest.approx(results[name]["value"], rel=1e-9)


def test_a_second_run_does_nothing_again_and_an_interrupted_one_goes_on(run, project, compared, monkeypatch):
    ran, folder = compared
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("result.json")}
    flags = [*project.flags, "--oracle", project.model, "--methods", METHODS, "--set", "graddiff.epochs=2",
             "--max-new-tokens", 12, "--output-dir", folder, "--json"]  # fmt: skip
    (folder / "guard" / "result.json").unlink()
    again = run("compare", *flags)
    assert again.code == 0, again.err
    results = json.loads(again.out)["results"]
    assert results == json.loads(ran.out)["results"]
    redone = [p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert redone == ["guard"]


def test_a_changed_setting_redoes_that_method_only(run, project, compared):
    _, folder = compared
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("result.json")}
    ran = run("compare", *project.flags, "--oracle", project.model, "--methods", METHODS, "--set", "graddiff.epochs=3",
              "--max-new-tokens", 12, "--output-dir", folder, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    redone = [p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert redone == ["graddiff"]


def test_a_foreign_folder_is_left_alone(run, project, tmp_path):
    thesis = tmp_path / "run" / "guard" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    ran = run("compare", *project.flags, "--methods", "guard", "--output-dir", tmp_path / "run")
    assert ran.code == 2
    assert "no run of ours wrote it" in ran.err
    assert thesis.read_text() == "years of work"


def test_from_python(tiny_lm, project, tmp_path):
    benchmark = load_benchmark(f"jsonl:{project.forget}", retain_file=project.retain)
    before = tiny_lm.score(benchmark.forget, [e.answer for e in benchmark.forget])
    report = unlearn.compare(
        tiny_lm, benchmark, methods=["guard-refuse"], output_dir=tmp_path / "api", max_new_tokens=8
    )
    assert report.metric("guard-refuse", "forget_Q_A_ROUGE")["value"] is not None
    assert report.metric("target", "forget_quality")["value"] is None
    assert Path(tmp_path / "api" / "report.html").is_file()
    after = tiny_lm.score(benchmark.forget, [e.answer for e in benchmark.forget])
    assert [s.avg_loss for s in after] == [s.avg_loss for s in before]


def test_report_prints_a_finished_run(run, compared):
    _, folder = compared
    (folder / "report.html").unlink()
    ran = run("report", folder)
    assert ran.code == 0
    assert "guard-refuse" in ran.out
    assert (folder / "report.html").is_file()
    assert json.loads(run("report", folder, "--json").out)["name"] == "run"
