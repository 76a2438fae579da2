"""Published logs: single items, summaries, and the values that a broken rule would give."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics import aggregate
from eval.metrics.forget_quality import two_sample_ks
from eval.metrics.membership import privacy_leakage
from eval.metrics.probability import probability
from eval.metrics.rouge import rouge_scores
from eval.metrics.truth_ratio import closer_to_one, true_better, truth_ratio
from eval.metrics.utility import UTILITY_TERMS, harmonic_mean
from eval.report.open_unlearning import LEGACY_FILES, item_values, items, read_log

Log = dict[str, Any]


@cache
def parsed(path: Path) -> Log:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def tofu(shared_data: Path) -> Callable[[str], Log]:
    folder = shared_data / "open_unlearning_eval_logs"
    return lambda name: parsed(folder / f"tofu_Llama-3.2-1B-Instruct_{name}" / "TOFU_EVAL.json")


def truth_ratios(log: Log, mean: Callable[[Any], Any]) -> Any:
    """Truth ratios of the forget rows, the wrong answers' losses put together by ``mean``."""
    right = np.exp(-np.asarray(item_values(log["forget_Q_A_PARA_Prob"], "avg_loss"), dtype=float))
    wrong = [mean(np.asarray(item["avg_loss"])) for item in items(log["forget_Q_A_PERT_Prob"])]
    return np.asarray(wrong) / (right + 1e-10)


PROB_MEAN = {
    "full_forget10": 0.6849835919,
    "retain90": 0.5673484297,
    "full_forget05": 0.6922865806,
    "retain95": 0.5744571026,
}
"""Forget truth ratio under OpenUnlearning's opt-in aggregator c / (c + w)."""


@pytest.mark.parametrize("name", PROB_MEAN)
def test_the_opt_in_aggregator_is_another_number(tofu: Callable[[str], Log], name: str) -> None:
    log = tofu(name)
    right = np.exp(-np.asarray(item_values(log["forget_Q_A_PARA_Prob"], "avg_loss"), dtype=float))
    wrong = [np.exp(-np.mean(item["avg_loss"])) for item in items(log["forget_Q_A_PERT_Prob"])]
    mean = (right / (right + np.asarray(wrong) + 1e-10)).mean()
    assert mean == pytest.approx(PROB_MEAN[name], abs=1e-9)
    ratios = truth_ratios(log, lambda losses: np.exp(-losses.mean()))
    assert closer_to_one(ratios).mean() == pytest.approx(log["forget_truth_ratio"]["agg_value"], abs=1e-9)
    assert mean != pytest.approx(log["forget_truth_ratio"]["agg_value"], abs=1e-2)


@pytest.mark.parametrize(
    ("name", "reference", "distance", "p"),
    [
        ("full_forget10", "retain90", 0.3375, 1.3990395282e-20),
        ("full_forget05", "retain95", 0.37, 1.4275699622e-12),
    ],
)
def test_forget_quality_of_arithmetic_truth_ratios(
    tofu: Callable[[str], Log], name: str, reference: str, distance: float, p: float
) -> None:
    samples = (
        truth_ratios(tofu(which), lambda losses: np.exp(-losses).mean()) for which in (name, reference)
    )
    test = two_sample_ks(*samples)
    assert test.statistic == pytest.approx(distance, abs=1e-12)
    assert test.p_value == pytest.approx(p, rel=1e-9, abs=0)


def test_the_first_item_by_hand(tofu: Callable[[str], Log]) -> None:
    log = tofu("full_forget10")
    gold, right, wrong = (items(log[f"forget_Q_A_{kind}"])[0] for kind in ("Prob", "PARA_Prob", "PERT_Prob"))
    assert (gold["prob"], gold["avg_loss"]) == pytest.approx((0.9508143663, 0.0504364036), abs=1e-9)
    assert gold["prob"] == pytest.approx(probability(gold["avg_loss"]), abs=8.6e-8)  # logged in fp32
    assert right["avg_loss"] == pytest.approx(2.1236655712, abs=1e-9)
    losses = [3.2159554958, 3.3368217945, 3.9964749813, 3.9565355778, 3.4876792431]
    assert wrong["avg_loss"] == pytest.approx(losses, abs=1e-9)
    ratio = items(log["forget_truth_ratio"])[0]["score"]
    assert ratio == pytest.approx(0.2287723561, abs=1e-10)
    assert truth_ratio(right["avg_loss"], wrong["avg_loss"]) == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize(("name", "smallest"), [("full_forget10", 0.0181818182), ("retain90", 0.0125000000)])
def test_published_extraction_strength_is_never_zero(
    tofu: Callable[[str], Log], name: str, smallest: float
) -> None:
    scores = item_values(tofu(name)["extraction_strength"])
    assert min(scores) == pytest.approx(smallest, abs=1e-9)


@pytest.mark.parametrize("name", PROB_MEAN)
def test_a_summary_holds_the_aggregates_of_its_log(shared_data: Path, name: str) -> None:
    path = shared_data / "open_unlearning_eval_logs" / f"tofu_Llama-3.2-1B-Instruct_{name}" / "TOFU_EVAL.json"
    summary, stored = parsed(path.with_name("TOFU_SUMMARY.json")), parsed(path)
    values = {metric: result.value for metric, result in aggregate(stored).items()}
    assert {"forget_Q_A_Prob", "forget_Q_A_ROUGE", "model_utility", "privleak", "mia_min_k"} <= set(summary)
    for metric, value in summary.items():
        assert value == stored[metric]["agg_value"], metric
        if metric not in ("forget_quality", "privleak"):  # these two need the retain log
            assert values[metric] == pytest.approx(value, abs=1e-9), metric
    if name.startswith("retain"):
        assert stored["forget_quality"]["agg_value"] is None
        assert "mia_reference" not in stored


def test_rouge_without_a_stemmer_is_another_number_on_a_retain_log(tofu: Callable[[str], Log]) -> None:
    texts = items(tofu("retain90")["forget_Q_A_ROUGE"])
    plain = [rouge_scores(t["ground_truth"], t["generation"], use_stemmer=False).rougeL_recall for t in texts]
    assert np.mean(plain) == pytest.approx(0.3718629196, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "half", "constant", "recall"),
    [
        ("target", -53.85999999, -57.22232524, 0.9993008514),
        ("retrain", 8.1599999984, 0.27813833, 0.1453082365),
    ],
)
def test_variants_of_muses_numbers(
    shared_data: Path, name: str, half: float, constant: float, recall: float
) -> None:
    folder = shared_data / "open_unlearning_eval_logs" / f"muse_Llama-2-7b-hf_Books_{name}"
    log = parsed(folder / "MUSE_EVAL.json")
    area = aggregate(log)["mia_min_k"].value
    assert privacy_leakage(area) == pytest.approx(half, abs=1e-7)
    assert aggregate(log)["privleak"].value == pytest.approx(half, abs=1e-7)
    assert privacy_leakage(area, 1 - 0.5393) == pytest.approx(constant, abs=1e-6)  # muse_bench, Books
    assert np.mean(item_values(log["forget_verbmem_ROUGE"], "rougeL_recall")) == pytest.approx(
        recall, abs=1e-9
    )
    starts = 126 * (1 - np.asarray(item_values(log["extraction_strength"]), dtype=float))
    assert starts == pytest.approx(starts.round(), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "ratios", "utility"),
    [
        ("full", (0.4538671193, 0.5051601074, 0.4230547537, 0.5303700246), 0.5858860351),
        ("retain90", (0.4495937460, 0.4785102942, 0.4200569698, 0.6796518215), 0.5752399175),
    ],
)
def test_legacy_logs_under_the_arithmetic_mean(
    shared_data: Path, name: str, ratios: tuple[float, ...], utility: float
) -> None:
    folder = shared_data / "tofu_eval_logs"
    log, values = read_log(folder / f"llama2-7b_{name}_wd0.01.json"), dict[str, float]()
    raw = parsed(folder / f"llama2-7b_{name}_wd0.01.json")
    for split, part in LEGACY_FILES.items():
        rows = sorted(raw[part]["avg_gt_loss"], key=int)
        right = np.exp(-np.asarray([raw[part]["avg_paraphrased_loss"][row] for row in rows]))
        wrong = [np.exp(-np.asarray(raw[part]["average_perturb_loss"][row])).mean() for row in rows]
        values[split] = (closer_to_one if split == "forget" else true_better)(wrong / right).mean()
    assert [values[split] for split in ("retain", "ra", "wf", "forget")] == pytest.approx(ratios, abs=1e-9)
    ours = {metric: result.value for metric, result in aggregate(log).items()}
    terms = [ours[term] for term in UTILITY_TERMS if not term.endswith("Truth_Ratio")]
    assert harmonic_mean([*terms, *ratios[:3]]) == pytest.approx(utility, abs=1e-9)
    assert ours["model_utility"] != pytest.approx(utility, abs=1e-3)


def test_legacy_forget_quality_is_exact_too(shared_data: Path) -> None:
    folder = shared_data / "tofu_eval_logs"
    log, reference = (read_log(folder / f"llama2-7b_{name}_wd0.01.json") for name in ("full", "retain90"))
    result = aggregate(log, reference)["forget_quality"]
    assert result.extra["D"] == pytest.approx(0.3966666667, abs=1e-9)
    assert result.value / 8.4966537406e-22 == pytest.approx(
        2.16, abs=0.01
    )  # the asymptotic value is about half
