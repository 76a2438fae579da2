"""Logs and results become sections; what is absent leaves its section out."""

import dataclasses
import math

import pytest

from eval.report import RunInfo
from eval.report.run_sections import goals_section
from eval.report.sections import answers_section, comparison_sections, truth_ratio_section, utility_scatter
from eval.report.table import format_number, format_p, main_table
from eval.types import Example


def _by_id(sections):
    return {section.id: section for section in sections}


def test_a_comparison_has_every_section(runs, results, logs):
    sections = _by_id(comparison_sections(runs=runs, results=results, logs=logs))
    assert list(sections) == [
        "goals",
        "forget-utility",
        "quality-utility",
        "truth-ratios",
        "paired",
        "answers",
        "methods",
        "settings",
        "comparability",
    ]


def test_goals_are_held_against_target_and_oracle(runs, results):
    results["npo"]["model_utility"]["value"] = 0.95 * 0.66 - 1e-6
    results["guard"]["forget_Q_A_ROUGE"]["value"] = 0.4 + 1e-6  # beyond the oracle's 0.3 + 0.10
    rows = goals_section(runs, results).data["rows"]
    assert len(rows) == 3  # neither target nor oracle
    assert [row["model_utility"] for row in rows] == [False, True, True]
    assert [row["forget_Q_A_ROUGE"] for row in rows] == [True, True, False]
    assert [row["forget_quality"] for row in rows] == [True, True, "not comparable"]


def test_goals_without_a_yardstick_are_left_out(runs, results):
    del results["oracle"], results["target"]
    columns = goals_section(runs, results).data["columns"]
    assert [column["key"] for column in columns] == ["method", "forget_quality"]


def test_a_users_own_rows_are_judged_by_retain_rouge(report, runs, results):
    """Without what model utility asks, the retain questions say what was kept: column, goal and picture."""
    assert "retain_Q_A_ROUGE" not in [column.key for column in main_table(report)[0]]
    kept = {"target": 1.0, "oracle": 0.9, "npo": 0.94, "grun-npo": 0.96, "guard": 1.0}
    for method, found in results.items():
        found["model_utility"] = {"value": None, "reason": "needs nine terms"}
        found["retain_Q_A_ROUGE"] = {"value": kept[method]}
        found["forget_quality"] = {"value": None, "reason": "Not comparable: a filter"}
    columns, rows = main_table(dataclasses.replace(report, results=results))
    names = [column.key for column in columns]
    assert names[0] == "retain_Q_A_ROUGE"
    assert "model_utility" not in names
    assert "forget_quality" not in names  # a column without one number says nothing
    assert [row.cells[0].value for row in rows] == list(kept.values())
    goals = goals_section(runs, results).data["rows"]
    assert [row["retain_Q_A_ROUGE"] for row in goals] == [False, True, True]
    data = utility_scatter(runs, results).data
    assert data["x"]["label"].startswith("retain ROUGE-L")
    assert [guide["value"] for guide in data["guides"]] == [0.95, 0.3]


def test_sections_without_data_are_left_out():
    sections = comparison_sections(runs=[RunInfo(method="model")], results={}, logs={})
    assert [section.id for section in sections] == ["methods", "comparability"]


def test_the_scatter_holds_target_oracle_and_every_method(runs, results):
    data = utility_scatter(runs, results).data
    assert [p["name"] for p in data["points"]] == ["target", "oracle", "npo", "grun-npo", "guard"]
    assert [p["role"] for p in data["points"][:3]] == ["before", "reference", "method"]
    guides = {guide["axis"]: guide["value"] for guide in data["guides"]}
    assert guides["x"] == pytest.approx(0.95 * 0.66)  # 95 % of the target's utility
    assert guides["y"] == 0.3  # the oracle's ROUGE-L


def test_a_filter_is_left_out_where_it_is_not_comparable(runs, results, logs):
    sections = _by_id(comparison_sections(runs=runs, results=results, logs=logs))
    for name, key in (("quality-utility", "points"), ("truth-ratios", "series")):
        assert "guard" not in [entry["name"] for entry in sections[name].data[key]]
        assert "not comparable: guard" in sections[name].caption
    log10 = {p["name"]: p["y"] for p in sections["quality-utility"].data["points"]}
    assert log10["npo"] == pytest.approx(math.log10(0.4))


def test_truth_ratios_are_sorted_and_carry_d(runs, results, logs):
    logs["npo"]["forget_truth_ratio"]["value_by_index"]["0"]["score"] = None
    series = {s["name"]: s for s in truth_ratio_section(runs, results, logs).data["series"]}
    assert series["target"]["note"] == "D 0.35, p 3.9e-22"
    assert len(series["npo"]["values"]) == 29
    assert series["npo"]["values"] == sorted(series["npo"]["values"])


def test_answers_follow_row_order_and_use_bare_questions(runs, logs):
    examples = [Example(id=f"row-{i}", question=f"Bare {i}?", answer=f"Gold {i}.") for i in range(30)]
    items = answers_section(runs, logs, examples).data["items"]
    assert [item["id"] for item in items] == [f"row-{i}" for i in range(30)]
    assert items[10]["question"] == "Bare 10?"
    assert items[10]["answers"]["target"]["leaked"] is True
    assert items[10]["answers"]["guard"] == {
        "text": "Person 10 was born in a town.",
        "rouge": 0.25,
        "leaked": False,
        "spans": [],
    }
    logged = answers_section(runs, logs).data["items"]
    assert logged[10]["question"] == "Question: Where was person 10 born?"


def test_published_logs_make_sections(shared_data):
    import json

    folder = shared_data / "open_unlearning_eval_logs"
    names = {"target": "full_forget10", "oracle": "retain90"}
    logs = {
        method: json.loads((folder / f"tofu_Llama-3.2-1B-Instruct_{name}" / "TOFU_EVAL.json").read_text())
        for method, name in names.items()
    }
    runs = [RunInfo(method=method) for method in names]
    assert len(truth_ratio_section(runs, {}, logs).data["series"][0]["values"]) == 400
    items = answers_section(runs, logs).data["items"]
    assert len(items) == 400
    assert items[0]["answers"]["target"]["text"] == "The author's full name is Hsiao Yun-Hwa."
    assert items[0]["answers"]["target"]["leaked"] is None


def test_the_best_of_a_column_is_sought_among_methods_only(report):
    columns, rows = main_table(report)
    best = {
        column.key: [row.run.method for row in rows if row.cells[i].is_best]
        for i, column in enumerate(columns)
    }
    assert best["forget_Q_A_ROUGE"] == ["npo"]  # the lowest; target and oracle are no contestants
    assert best["model_utility"] == ["grun-npo"]
    assert best["leak_rate"] == []  # all alike: nothing to single out


def test_a_filters_forget_quality_reads_not_comparable(report):
    columns, rows = main_table(report)
    index = [column.key for column in columns].index("forget_quality")
    cells = {row.run.method: row.cells[index] for row in rows}
    assert cells["guard"].text == "not comparable"
    assert "filter" in cells["guard"].title
    assert (cells["target"].text, cells["target"].detail) == ("3.9e-22", "D 0.35")


def test_columns_without_any_number_are_left_out(report):
    columns, _ = main_table(report)
    assert "extraction_strength" not in [column.key for column in columns]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.5, "0.500"),
        (0.0001, "1.0e-04"),
        (0, "0"),
        (12.34, "12.3"),
        (1843200, "1\u2009843\u2009200"),
    ],
)
def test_numbers_are_written_short(value, text):
    assert format_number(value).replace(" ", "\u2009") == text


def test_p_values_keep_their_magnitude():
    assert format_p(3.9054713571e-22) == "3.9e-22"
    assert format_p(0.9876) == "0.988"
