"""Several seeds in one command: means with their spread, every seed's numbers kept, finished seeds not done again."""

import json
import statistics

import pytest

from eval.report import RunInfo
from eval.report.seeds_section import seeds_section
from unlearn.runs import Finished
from unlearn.seeds import averaged


def _finished(method="npo", seconds=1.0, **values):
    results = {
        name: {"value": value, "ci": [value - 0.1, value + 0.1], "n": 4} for name, value in values.items()
    }
    return Finished(RunInfo(method=method, seconds=seconds), results)


def test_compare_averages_over_seeds_and_keeps_each(run, project, tmp_path):
    flags = [*project.flags, "--methods", "graddiff", "--set", "graddiff.epochs=2", "--max-new-tokens", 8,
             "--output-dir", tmp_path / "run", "--json"]  # fmt: skip
    one = run("compare", *flags)
    assert one.code == 0, one.err
    stamp = (tmp_path / "run" / "graddiff" / "result.json").stat().st_mtime_ns
    three = run("compare", *flags, "--seeds", 3)
    assert three.code == 0, three.err
    assert (tmp_path / "run" / "graddiff" / "result.json").stat().st_mtime_ns == stamp
    found = json.loads(three.out)["results"]["graddiff"]["forget_Q_A_Prob"]
    stored = [
        json.loads((tmp_path / "run" / name / "result.json").read_text())["results"]["forget_Q_A_Prob"][
            "value"
        ]
        for name in ("graddiff", "graddiff@1", "graddiff@2")
    ]
    assert list(found["by_seed"].values()) == stored
    assert found["value"] == pytest.approx(statistics.fmean(stored))
    assert found["sd"] == pytest.approx(statistics.stdev(stored))
    assert len(set(stored)) > 1
    assert "seeds" in {section["id"] for section in json.loads(three.out)["sections"]}
    assert "±" in (tmp_path / "run" / "report.md").read_text()


def test_zero_seeds_are_refused(run, project, tmp_path):
    ran = run("compare", *project.flags, "--methods", "guard", "--seeds", 0, "--output-dir", tmp_path / "run")
    assert ran.code == 2
    assert "seeds" in ran.err


def test_a_mean_of_p_values_is_their_median():
    runs = {seed: _finished(forget_quality=p) for seed, p in enumerate([0.9, 1e-6, 0.2])}
    assert averaged(runs).results["forget_quality"]["value"] == 0.2


def test_a_metric_that_one_seed_lacks_is_null():
    lacking = _finished(seconds=3.0)
    lacking.results["leak_rate"] = {"value": None, "ci": None, "n": 0, "reason": "it collapsed"}
    both = averaged({0: _finished(leak_rate=0.5), 1: lacking})
    assert both.results["leak_rate"]["value"] is None
    assert both.results["leak_rate"]["reason"] == "it collapsed"
    assert both.info.seconds == 2.0
    assert "2 seeds" in both.info.notes[-1]


def test_the_section_calls_a_difference_within_the_spread_noise():
    runs = {
        "steady": averaged(
            {0: _finished(leak_rate=0.10), 1: _finished(leak_rate=0.12), 2: _finished(leak_rate=0.11)}
        ),
        "shaky": averaged(
            {0: _finished(leak_rate=0.05), 1: _finished(leak_rate=0.60), 2: _finished(leak_rate=0.10)}
        ),
        "bad": averaged(
            {0: _finished(leak_rate=0.90), 1: _finished(leak_rate=0.91), 2: _finished(leak_rate=0.89)}
        ),
    }
    section = seeds_section([RunInfo(method=name) for name in runs], {n: r.results for n, r in runs.items()})
    readings = {row["method"]: row["reading"] for row in section.data["rows"]}
    assert readings == {"steady": "best", "shaky": "within the noise", "bad": "worse"}


def test_one_seed_makes_no_section():
    run = averaged({0: _finished(leak_rate=0.1)})
    assert seeds_section([run.info], {"npo": run.results}) is None
