"""Exported tables hold every value, and TOFU's legacy form comes back as it went."""

import csv
import json
from math import exp, log

import pytest

from eval.errors import ConfigError, DataError
from eval.metrics.aggregate import aggregate
from eval.report.export import COLUMNS, export, per_example_rows, tofu_legacy_log
from eval.report.open_unlearning import LEGACY_FILES, legacy_to_open_unlearning, write_log


def _items(rows):
    return {"value_by_index": {str(i): row for i, row in enumerate(rows)}}


def _loss(value):
    return {"prob": exp(-value), "avg_loss": value}


@pytest.fixture(name="log")
def _log():
    out = {"mia_loss": {"forget": _items([{"score": 0.5}]), "holdout": _items([{"score": 0.25}])}}
    for k, split in enumerate(LEGACY_FILES):
        out[f"{split}_Q_A_Prob"] = _items([_loss(0.7 + k), _loss(0.9)])
        out[f"{split}_Q_A_PERT_Prob"] = _items([{"prob": [0.1, 0.2], "avg_loss": [-log(0.1), -log(0.2)]}] * 2)
        out[f"{split}_Q_A_PARA_Prob"] = _items([_loss(1.2), _loss(1.1 + k)])
        text = {"rouge1_recall": 0.5, "rougeL_recall": 0.25, "generation": 'a, "b"\nc', "ground_truth": "a b"}
        out[f"{split}_Q_A_ROUGE"] = _items([text | {"input": "Q"}] * 2)
    return out


@pytest.fixture
def run(log, tmp_path):
    for name in ("npo", "guard"):
        write_log(log, {}, tmp_path / "run" / name / "eval")
    return tmp_path / "run"


def test_a_row_for_every_value(run):
    rows = list(per_example_rows(run))
    assert {row["method"] for row in rows} == {"npo", "guard"}
    one = [r for r in rows if r["method"] == "npo" and r["metric"] == "ra_Q_A_PERT_Prob" and r["index"] == 1]
    assert {r["field"]: r["number"] for r in one} == {
        "prob.0": 0.1,
        "prob.1": 0.2,
        "avg_loss.0": -log(0.1),
        "avg_loss.1": -log(0.2),
    }
    assert [(r["part"], r["number"]) for r in rows if r["metric"] == "mia_loss"][:2] == [
        ("forget", 0.5),
        ("holdout", 0.25),
    ]


def test_csv_and_parquet_hold_the_same(run, tmp_path):
    export(run, tmp_path / "values.csv")
    export(run, tmp_path / "values.parquet")
    with (tmp_path / "values.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    rows = list(per_example_rows(run))
    assert [tuple(row) for row in read[:1]] == [COLUMNS]
    assert [(r["field"], r["text"], r["number"]) for r in read] == [
        (r["field"], r["text"] or "", "" if r["number"] is None else str(r["number"])) for r in rows
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(tmp_path / "values.parquet").to_pylist() == rows


def test_the_legacy_form_gives_the_same_aggregates(log, run, tmp_path):
    export(run / "npo", tmp_path / "eval_log_aggregated.json")
    back = legacy_to_open_unlearning(json.loads((tmp_path / "eval_log_aggregated.json").read_text()), "test")
    ours, theirs = aggregate(log), aggregate(back)
    for name in ("forget_Q_A_Prob", "retain_Q_A_ROUGE", "wf_Q_A_PERT_Prob", "ra_Q_A_PARA_Prob"):
        if name in theirs:
            assert theirs[name].value == pytest.approx(ours[name].value)
    assert {"forget_Q_A_Prob", "retain_Q_A_ROUGE", "wf_Q_A_PERT_Prob"} <= set(theirs)


def test_what_cannot_be_written_is_refused(log, run, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv"):
        export(run, tmp_path / "values.xlsx")
    del log["ra_Q_A_PERT_Prob"]
    with pytest.raises(DataError, match="'ra' split"):
        tofu_legacy_log(log)
