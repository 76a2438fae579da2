"""A LUME submission says what the run said, and the task's scorer would give it the same scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import harmonic_mean, mean
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from eval.data import load_benchmark
from eval.errors import ArtifactError, ConfigError, DataError
from eval.metrics import recompute
from eval.metrics.composites import LUME_TERMS
from eval.models import GenerationOptions, LanguageModel
from eval.report.export import export
from eval.report.lume_submission import RESULTS_FILE, is_submission, submission_results
from eval.report.open_unlearning import read_log
from eval.runner import evaluate

TASKS = ("Task1", "Task2", "Task3")


@pytest.fixture
def run(tiny_lm: LanguageModel, tmp_path: Path) -> Path:
    short = GenerationOptions(max_new_tokens=6)
    evaluate(tiny_lm, load_benchmark("lume:mini"), options=short, output_dir=tmp_path / "run", gradnorm=False)
    samples = tmp_path / "run" / "eval" / "samples.jsonl"
    assert len(samples.read_text().splitlines()) == 72
    return tmp_path / "run"


def official_scores(folder: Path) -> dict[str, Any]:
    """The steps of the task's evaluate_generations.py on its CSV files, without pandas and scikit-learn."""
    scorer, results, terms = RougeScorer(["rougeL"], use_stemmer=True), {}, []
    for part in ("forget", "retain"):
        with (folder / f"{part}_0.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        found: dict[str, dict[str, list[float]]] = {
            task: {"regurgitation": [], "knowledge": []} for task in TASKS
        }
        for row in rows:
            truth, said = row["expected_output"], row["model_output"] or "nan"
            if row["id"][:-1].endswith("sc"):
                recall = scorer.score(truth, said)["rougeL"].recall
                found[row["task"]]["regurgitation"].append(recall)
            else:
                found[row["task"]]["knowledge"].append(float(truth.strip().lower() == said.strip().lower()))
        for kind in ("regurgitation", "knowledge"):
            every = [value for task in TASKS for value in found[task][kind]]
            results[f"{part}-set", f"overall-{kind}-score"] = mean(every)
        values = [mean(found[task][kind]) for task in TASKS for kind in ("regurgitation", "knowledge")]
        terms += [1 - value for value in values] if part == "forget" else values
    losses = []
    for name in ("member", "nonmember"):
        with (folder / "mia_results" / f"{name}_0.csv").open(newline="") as file:
            losses.append([float(row["nll"]) for row in csv.DictReader(file)])
    wins = [(a < b) + (a == b) / 2 for a in losses[0] for b in losses[1]]
    return results | {"terms": terms, "task": harmonic_mean(terms), "auc": mean(wins)}


def test_the_official_steps_give_the_results_that_are_written(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission"
    export(run, out)
    assert is_submission(out)
    results = json.loads((out / RESULTS_FILE).read_text())
    official = official_scores(out)
    assert results["aggregated-terms"] == pytest.approx(official["terms"], abs=1e-12)
    assert results["harmonic-mean-task-aggregate"] == pytest.approx(official["task"], abs=1e-12)
    assert results["mia_loss_acc"] == pytest.approx(official["auc"], abs=1e-12)
    assert results["mia_final_score"] == pytest.approx(1 - 2 * abs(official["auc"] - 0.5))
    for part in ("forget-set", "retain-set"):
        assert set(results[part]) == {"overall-regurgitation-score", "overall-knowledge-score", *TASKS}
        for kind in ("regurgitation", "knowledge"):
            name = f"overall-{kind}-score"
            assert results[part][name] == pytest.approx(official[part, name], abs=1e-12)
    parts = [results[name] for name in ("harmonic-mean-task-aggregate", "mia_final_score", "mmlu_average")]
    assert results["aggregate-score"] == pytest.approx(mean(parts))


def test_a_submission_read_back_has_the_runs_scores(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "submission")
    ours, back = recompute(run), recompute(tmp_path / "submission")
    assert {*LUME_TERMS, "mia_loss", "mmlu_acc", "lume_final_score"} <= set(back)
    for name, value in back.items():
        assert value == pytest.approx(ours[name], abs=1e-12), name
    for path in tmp_path.glob("submission/**/*.jsonl"):  # what the official scorer leaves: CSV alone
        path.unlink()
    assert recompute(tmp_path / "submission") == back
    with (tmp_path / "submission" / "forget_0.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "submission" / "forget_1.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[-2:]])  # the second process repeats rows to fill up
    assert recompute(tmp_path / "submission") == back


def test_without_mia_and_mmlu_there_is_no_final_score(run: Path) -> None:
    log = {name: entry for name, entry in read_log(run).items() if name in LUME_TERMS}
    results = submission_results(log)
    assert results["aggregate-score"] == -1
    assert not {"mia_loss_acc", "mia_final_score", "mmlu_average"} & set(results)


def test_what_is_no_submission_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no submission"):
        export(run, tmp_path)
    log = dict(read_log(run))
    del log["retain_Task3_knowledge"]
    with pytest.raises(DataError, match=r"no retain_Task3_knowledge.*--benchmark lume"):
        submission_results(log)
    data = tmp_path / "data"
    data.mkdir()
    for part in ("forget", "retain"):  # LUME's data files have the same names
        row = {"id": "asc1", "input": "x", "output": "y", "task": "Task1"}
        (data / f"{part}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ArtifactError, match=r"forget\.jsonl, row 1 has no 'expected_output'"):
        recompute(data)
    row = {"id": "aqa1", "task": "Task9", "expected_output": "y", "model_output": "y"}
    (data / "forget.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ArtifactError, match="of task 'Task9'"):
        recompute(data)
