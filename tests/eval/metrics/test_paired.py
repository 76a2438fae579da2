"""Paired tests: known differences are found, noise is called noise, and the table reads it so."""

import itertools

import numpy as np
import pytest

from eval.errors import DataError
from eval.metrics.paired import holm, paired_difference, paired_logs
from eval.metrics.utility import UTILITY_TERMS
from eval.report import RunInfo
from eval.report.paired_section import paired_section


def _entry(name, values):
    field = "rougeL_recall" if name.endswith("ROUGE") else "prob" if "_Prob" in name else "score"
    return {"value_by_index": {str(i): {field: value} for i, value in enumerate(values)}}


def _log(**metrics):
    return {name: _entry(name, values) for name, values in metrics.items()}


def test_the_p_value_is_that_of_all_exchanges():
    a, b = [0.9, 0.8, 0.7, 0.9, 0.2, 0.6], [0.1, 0.3, 0.6, 0.2, 0.3, 0.5]
    gaps = np.subtract(a, b)
    every = [abs(np.mean(gaps * signs)) for signs in itertools.product((1, -1), repeat=len(gaps))]
    exact = np.mean(np.array(every) >= abs(gaps.mean()) - 1e-9)
    found = paired_difference(_log(leak_rate=a), _log(leak_rate=b), "leak_rate")
    assert found.value == pytest.approx(gaps.mean())
    assert found.p_value == pytest.approx(exact, abs=0.02)
    assert found.is_noise == (exact >= 0.05)


def test_pairing_finds_what_the_means_alone_hide():
    hard = np.random.default_rng(0).uniform(0, 1, 100)
    log_a, log_b = _log(forget_Q_A_ROUGE=hard), _log(forget_Q_A_ROUGE=hard * 0.95)
    found = paired_difference(log_a, log_b, "forget_Q_A_ROUGE")
    assert not found.is_noise
    assert found.ci[0] > 0
    assert paired_difference(log_a, log_a, "forget_Q_A_ROUGE").p_value == 1.0


def test_rows_without_a_value_in_one_log_are_left_out_of_both():
    found = paired_difference(_log(leak_rate=[1.0, None, 1.0]), _log(leak_rate=[0.0, 1.0, 0.0]), "leak_rate")
    assert (found.value, found.n) == (1.0, 2)


def test_model_utility_is_compared_by_its_harmonic_mean():
    low = {name: [0.2, 0.4] for name in UTILITY_TERMS}
    high = {name: [0.4, 0.8] for name in UTILITY_TERMS}
    for values in (low, high):
        for name in UTILITY_TERMS:
            if name.endswith("Truth_Ratio"):  # 1 - ratio counts
                values[name] = [1 - value for value in values[name]]
    found = paired_difference(_log(**high), _log(**low), "model_utility")
    assert found.value == pytest.approx(0.3)
    assert found.n == 6  # two rows in each of three splits


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({}, "no per-item values of leak_rate"),
        (_log(leak_rate=[0.0]), "2 and 1 rows"),
        (_log(leak_rate=[None, None]), "No row"),
    ],
)
def test_logs_that_cannot_be_paired_are_refused(second, said):
    with pytest.raises(DataError, match=said):
        paired_difference(_log(leak_rate=[0.0, 1.0]), second, "leak_rate")


def test_every_shared_metric_is_compared_unless_some_are_named():
    log = _log(leak_rate=[0.0, 1.0], forget_Q_A_ROUGE=[0.5, 0.5])
    assert set(paired_logs(log, log)) == {"leak_rate", "forget_Q_A_ROUGE"}
    assert set(paired_logs(log, log, ["leak_rate"])) == {"leak_rate"}
    with pytest.raises(DataError, match="share no metric"):
        paired_logs(log, {"masked_steps": {}})


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_section_reads_differences_against_the_best():
    rng = np.random.default_rng(1)
    logs = {
        "good": _log(leak_rate=rng.uniform(0, 0.3, 60)),
        "like-good": _log(leak_rate=rng.uniform(0, 0.3, 60)),
        "bad": _log(leak_rate=rng.uniform(0.5, 1, 60)),
    }
    means = {
        name: float(np.mean([v["score"] for v in log["leak_rate"]["value_by_index"].values()]))
        for name, log in logs.items()
    }
    results = {name: {"leak_rate": {"value": mean}} for name, mean in means.items()}
    best = min(("good", "like-good"), key=lambda name: means[name])
    section = paired_section([RunInfo(method=name) for name in logs], results, logs)
    readings = {row["method"]: row["reading"] for row in section.data["rows"]}
    other = ({"good", "like-good"} - {best}).pop()
    assert readings == {other: "within the noise", "bad": "worse"}
    assert {row["best"] for row in section.data["rows"]} == {best}
    assert paired_section([RunInfo(method="good")], results, logs) is None
