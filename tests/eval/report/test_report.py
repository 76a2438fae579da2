"""`report.json`: round trip, refusal of what is not ours, atomic writing."""

import json
import math
import os

import pytest

from eval.errors import ArtifactError
from eval.report import SCHEMA_VERSION, Report


def test_a_report_survives_the_round_trip(report, tmp_path):
    report.save_json(tmp_path)
    assert Report.load(tmp_path) == report
    assert Report.load(tmp_path / "report.json") == report


def test_save_writes_three_files_and_no_others(report, tmp_path):
    page = report.save(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["report.html", "report.json", "report.md"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_numbers_that_json_lacks_become_null(report, tmp_path):
    report.results["npo"]["model_utility"] = {"value": math.nan, "ci": [math.inf, 1.0], "n": 3}
    report.save_json(tmp_path)
    assert Report.load(tmp_path).results["npo"]["model_utility"] == {"value": None, "ci": [None, 1.0], "n": 3}


def test_a_metric_that_was_not_measured_is_null(report):
    assert report.metric("npo", "mia_min_k")["value"] is None
    assert report.metric("npo", "forget_quality")["D"] == 0.35


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "update the toolkit"),
        ({"schema_version": 0}, "make the report again"),
        ({"colour": "red"}, r"unknown fields \(colour\)"),
        ({"runs": [{"method": "npo"}]}, "run 0 lacks .*kind"),
        ({"runs": ["npo"]}, "run 0 is a str"),
        ({"results": {"npo": [1]}}, "damaged"),
        ({"results": None}, "damaged"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_with_a_sentence(report, tmp_path, change, message):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report.as_json() | change))
    with pytest.raises(ArtifactError, match=message) as caught:
        Report.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "3"])
def test_foreign_json_is_no_report(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="not a report"):
        Report.load(path)


def test_a_missing_field_reads_as_half_written(report, tmp_path):
    content = report.as_json()
    del content["results"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="lacks results; it may be half-written"):
        Report.load(tmp_path)


def test_an_interrupted_save_keeps_the_old_report(report, tmp_path, monkeypatch):
    report.save_json(tmp_path)
    before = (tmp_path / "report.json").read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    report.results["npo"]["model_utility"]["value"] = 0.123
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        report.save_json(tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_json_is_there_even_when_drawing_fails(report, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("eval.report.html.render_html", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        report.save(tmp_path)
    assert Report.load(tmp_path) == report


def test_importing_the_report_stays_light():
    import subprocess
    import sys

    heavy = "{'torch', 'matplotlib', 'jinja2', 'rich'}"
    code = f"import sys, eval.report, unlearn.display; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
