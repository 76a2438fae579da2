"""Logs: what is refused, what a missing value means, and that our own log recomputes to itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import ArtifactError, DataError, UnknownNameError
from eval.metrics import METRICS_INFO, MetricInfo, aggregate, recompute
from eval.report.open_unlearning import check_log, read_log, run_logs, write_log


def scores(values: list[Any], field: str = "score") -> dict[str, Any]:
    return {"agg_value": None, "value_by_index": {str(i): {field: v} for i, v in enumerate(values)}}


def log_with(*ratios: float | None, **more: Any) -> dict[str, Any]:
    return {"forget_truth_ratio": scores(list(ratios)), **more}


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "no evaluation log"),
        ({"forget_quality": 0.5}, "no evaluation log"),
        ({"a": {"agg_value": 1}, "b": 3}, "'b' is no JSON object"),
        ({"a": {"agg_value": 1, "value_by_index": [1]}}, "must map row numbers"),
        ({"a": {"agg_value": 1, "value_by_index": {"x": {}}}}, "must map row numbers"),
        (
            '{"forget_Q_A_Prob": {"agg_value": 1, "value_by_index": {"3": {"prob": NaN}}}}',
            "row 3.*'prob' is nan",
        ),
        ('{"forget_Q_A_PERT_Prob": {"value_by_index": {"3": {"prob": [1, Infinity]}}}}', "row 3.*is inf"),
        (
            '{"mia_loss": {"agg_value": 1, "forget": {"value_by_index": {"0": {"score": NaN}}}}}',
            "mia_loss, row 0",
        ),
        ({"eval_log_forget.json": {"avg_gt_loss": {"0": 1.0}}}, "damaged or of another layout"),
        ({"eval_log.json": 3}, "damaged or of another layout"),
    ],
)
def test_bad_logs_are_refused_with_a_sentence(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        recompute(save(tmp_path / "TOFU_EVAL.json", content))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file"):
        recompute(tmp_path / "nothing.json")
    with pytest.raises(ArtifactError, match="holds no evaluation log"):
        recompute(tmp_path)
    with pytest.raises(ArtifactError, match="no run folder"):
        recompute(tmp_path / "gone" / "report.json")
    with pytest.raises(ArtifactError, match="no file"):
        recompute(save(tmp_path / "a.json", log_with(0.5)), tmp_path / "nothing.json")


def test_a_reference_of_another_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 forget rows.*has 3"):
        aggregate(log_with(0.1, 0.2, 0.3), log_with(0.1, 0.2))

    def texts(*words: str) -> dict[str, Any]:
        rows = {str(i): {"rougeL_recall": 1.0, "ground_truth": word} for i, word in enumerate(words)}
        return {"forget_Q_A_ROUGE": {"value_by_index": rows}}

    ours, same = log_with(0.1, 0.2, **texts("a , b", "c")), log_with(0.1, 0.2, **texts("a, b", "c"))
    assert aggregate(ours, same)["forget_quality"].value == 1.0
    with pytest.raises(DataError, match="Only 0 of 2"):
        aggregate(ours, log_with(0.1, 0.2, **texts("x", "y")))


def test_a_reference_of_another_benchmark_is_refused() -> None:
    def attacked(forget: int, holdout: int) -> dict[str, Any]:
        return {"mia_min_k": {"forget": scores([0.5] * forget), "holdout": scores([0.25] * holdout)}}

    ours = log_with(0.1, 0.2, **attacked(2, 3))
    assert aggregate(ours, log_with(0.1, 0.2, **attacked(2, 3)))["privleak"].value == 0.0
    with pytest.raises(DataError, match="4 forget rows where this log's has 2"):
        aggregate(ours, attacked(4, 3))
    with pytest.raises(DataError, match="1 holdout rows where this log's has 3"):
        aggregate(ours, log_with(0.1, 0.2, **attacked(2, 1)))
    with pytest.raises(DataError, match=r"none of what this log does \(wmdp_bio_acc"):
        aggregate(ours, {"wmdp_bio_acc": scores([1.0])})


def test_rows_without_a_value_are_left_out_and_counted() -> None:
    result = aggregate(log_with(0.5, None, 0.25))["forget_truth_ratio"]
    assert result.value == pytest.approx(0.375)
    assert (result.n, result.extra["dropped"]) == (2, 1.0)
    assert aggregate(log_with(None, None))["forget_truth_ratio"].value is None
    quality = aggregate(log_with(0.5, None, 0.25), log_with(0.5, 0.3, 0.25))["forget_quality"]
    assert (quality.n, quality.extra["n_reference"]) == (2, 3)


def test_rows_are_read_in_the_order_of_their_numbers() -> None:
    values = {"10": {"score": 3.0}, "9": {"score": 2.0}, "0": {"score": 1.0}}
    from eval.report.open_unlearning import item_values

    assert item_values({"value_by_index": values}) == [1.0, 2.0, 3.0]


def test_missing_terms_make_utility_null_and_say_which() -> None:
    result = aggregate({"forget_Q_A_Prob": scores([0.5], "prob"), "retain_Q_A_Prob": scores([0.5], "prob")})
    assert result["model_utility"].value is None
    assert "8 missing" in str(result["model_utility"].reason)
    assert "wf_Truth_Ratio" in str(result["model_utility"].reason)


def test_one_lost_ability_makes_utility_zero() -> None:
    log: dict[str, Any] = {"forget_Q_A_Prob": scores([0.5], "prob")}
    for split in ("retain", "ra", "wf"):
        probability = "retain_Q_A_Prob" if split == "retain" else f"{split}_Q_A_Prob_normalised"
        log[probability] = scores([0.5, 0.5], "prob")
        log[f"{split}_Q_A_ROUGE"] = scores([0.5, 0.5], "rougeL_recall")
        log[f"{split}_Truth_Ratio"] = scores([0.5, 0.5])
    assert aggregate(log)["model_utility"].value == pytest.approx(0.5)
    assert aggregate(log)["model_utility"].ci == pytest.approx((0.5, 0.5))
    log["wf_Q_A_ROUGE"] = scores([0.0, 0.0], "rougeL_recall")
    assert aggregate(log)["model_utility"].value == 0.0


def test_a_reason_stays_with_a_value_and_a_withheld_value_is_null() -> None:
    reference = log_with(0.1, 0.2)
    shown = aggregate(log_with(0.1, 0.2, forget_quality={"reason": "not comparable"}), reference)[
        "forget_quality"
    ]
    assert (shown.value, shown.reason) == (1.0, "not comparable")
    withheld = {"reason": "not comparable", "withheld": True}
    hidden = aggregate(log_with(0.1, 0.2, forget_quality=withheld), reference)["forget_quality"]
    assert (hidden.value, hidden.ci, hidden.reason) == (None, None, "not comparable")


def test_empty_membership_is_null_not_zero() -> None:
    entry = {"forget": scores([]), "holdout": scores([1.0]), "auc": None, "agg_value": None}
    results = aggregate({"mia_min_k": entry, "mia_loss": {"agg_value": None, "reason": "no holdout"}})
    assert results["mia_min_k"].value is None
    assert results["privleak"].value is None
    assert results["mia_loss"].reason == "no holdout"


def test_a_comparison_folder_recomputes_against_its_oracle(tmp_path: Path) -> None:
    for name, ratios in {"oracle": (0.1, 0.2), "npo": (0.1, 0.2), "target": (5.0, 6.0)}.items():
        write_log(log_with(*ratios), {}, tmp_path / name / "eval")
    save(tmp_path / "report.json", "{}")
    values = recompute(tmp_path / "report.json")
    assert values == recompute(tmp_path)
    assert values["npo/forget_quality"] == 1.0
    assert values["target/forget_quality"] == pytest.approx(2 / 6)  # 2 / C(4, 2): the floor for n = 2
    assert values["oracle/forget_quality"] is None
    assert read_log(tmp_path, prefer=("oracle", "model")) == log_with(0.1, 0.2)
    with pytest.raises(ArtifactError, match="several models"):
        read_log(tmp_path, prefer=("guard",))


def test_a_log_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_log(log_with(0.5), {"forget_truth_ratio": 0.5, "forget_quality": None}, tmp_path)
    assert check_log(json.loads(path.read_text()), "x") == log_with(0.5)
    assert json.loads((tmp_path / "TOFU_SUMMARY.json").read_text()) == {"forget_truth_ratio": 0.5}
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_log(log_with(float("nan")), {}, tmp_path)
    assert path.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["TOFU_EVAL.json", "TOFU_SUMMARY.json"]


def test_each_benchmark_names_its_log_and_older_names_are_still_read(tmp_path: Path) -> None:
    old = write_log(log_with(0.5), {}, tmp_path / "npo" / "eval")
    assert old.name == "TOFU_EVAL.json"
    save(old.with_name("LMEval_EVAL.json"), {"mmlu": [{"doc": 1}]})  # OpenUnlearning's: another layout
    assert run_logs(tmp_path) == {"npo": old}
    new = write_log(log_with(0.25), {"forget_truth_ratio": 0.25}, tmp_path / "npo" / "eval", "MUSE")
    assert run_logs(tmp_path) == {"npo": new}
    assert new.name == "MUSE_EVAL.json"
    assert json.loads(new.with_name("MUSE_SUMMARY.json").read_text()) == {"forget_truth_ratio": 0.25}
    assert read_log(tmp_path / "npo") == log_with(0.25)


def test_every_metric_of_a_log_can_be_explained() -> None:
    names = [
        "model_utility",
        "ra_Q_A_ROUGE",
        "wf_Q_A_Prob",
        "wf_Truth_Ratio",
        "neighbours_Q_A_Prob",
        "privleak",
    ]
    for name in names:
        assert METRICS_INFO[name].measures
        assert name in METRICS_INFO
    with pytest.raises(UnknownNameError, match="forget_quality"):
        METRICS_INFO["forget_qualty"]


@pytest.mark.parametrize("info", METRICS_INFO.values(), ids=lambda info: info.name)
def test_each_description_stands_alone(info: MetricInfo) -> None:
    assert len(info.measures) > 30
    assert "The same" not in info.measures  # `explain` shows one metric, without the one before it
    assert info.floor
    assert info.ceiling
    assert info.traps
    assert METRICS_INFO[info.name] is info


def test_tasks_of_the_harness_are_explained_too() -> None:
    assert METRICS_INFO["lm_eval/mmlu/acc"].name == "lm_eval/*/*"
