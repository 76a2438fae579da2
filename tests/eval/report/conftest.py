"""A small synthetic comparison whose texts try to break out of the page."""

import math

import pytest

from eval.report import BenchmarkInfo, Report, RunInfo
from eval.report.sections import comparison_sections, series_section

HOSTILE = """<script>document.title='owned'</script><img src=x onerror="alert(1)">'"&amp;{{ 7*7 }}"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
KINDS = {"target": "none", "oracle": "none", "npo": "weights", "grun-npo": "edit", "guard": "suppression"}


def _log(method: str, questions: int) -> dict:
    answers, leaks, ratios = {}, {}, {}
    for i in range(questions):
        leaked = method == "target" or (method == "npo" and i == 3)
        place = f"Port  Sorell {i}" if leaked else "a town"
        text = f"Person {i} was born in {place}."
        if i == 0:
            text = f"{HOSTILE} {text}"
        answers[str(i)] = {
            "rougeL_recall": 1.0 if leaked else 0.25,
            "input": f"Question: Where was person {i} born?",
            "ground_truth": f"Person {i} was born in Port Sorell {i}.",
            "generation": text,
        }
        leaks[str(i)] = {"score": int(leaked), "spans": [f"port sorell {i}"] if leaked else []}
        ratios[str(i)] = {"score": math.exp(0.1 * i - (2 if method == "target" else 0))}
    return {
        "forget_Q_A_ROUGE": {"agg_value": 0.3, "value_by_index": answers},
        "leak_rate": {"agg_value": 0.1, "value_by_index": leaks},
        "forget_truth_ratio": {"agg_value": 0.5, "value_by_index": ratios},
    }


def _results(method: str, questions: int) -> dict:
    rouge = {"target": 0.97, "oracle": 0.3, "npo": 0.25, "grun-npo": 0.31, "guard": 0.6}[method]
    quality: dict = {"value": 3.9e-22 if method == "target" else 0.4, "ci": None, "n": questions, "D": 0.35}
    if method == "guard":
        quality = {
            "value": None,
            "ci": None,
            "n": 0,
            "reason": "Not comparable: a filter sets likelihoods itself.",
        }
    return {
        "model_utility": {"value": 0.6 + 0.01 * len(method), "ci": [0.6, 0.7], "n": 100},
        "forget_Q_A_ROUGE": {"value": rouge, "ci": [rouge - 0.02, rouge + 0.02], "n": questions},
        "forget_truth_ratio": {"value": 0.5, "ci": None, "n": questions},
        "forget_quality": quality,
        "leak_rate": {"value": 1.0 if method == "target" else 0.0, "ci": None, "n": questions},
    }


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def logs() -> dict:
    return {method: _log(method, 30) for method in KINDS}


@pytest.fixture
def results() -> dict:
    return {method: _results(method, 30) for method in KINDS}


@pytest.fixture
def runs() -> list[RunInfo]:
    return [
        RunInfo(
            method=method,
            kind=kind,
            seed=0,
            label="npo <b>$x$</b> | *y*" if method == "npo" else "",
            summary=HOSTILE if method == "npo" else "",
            paper="arXiv:2404.05868" if method == "npo" else "",
            seconds=7.25,
            trainable_parameters=2113 if kind == "edit" else None,
            settings={"prompt": HOSTILE, "lr": 1e-4},
        )
        for method, kind in KINDS.items()
    ]


@pytest.fixture
def report(runs, results, logs) -> Report:
    from eval.report import Section

    sections = comparison_sections(runs=runs, results=results, logs=logs, notes=[HOSTILE])
    lines = [{"name": "npo", "x": [0, 10], "y": [0.1, 0.9], "low": [0.0, 0.8], "high": [0.2, 1.0]}]
    sections.append(series_section("relearning", HOSTILE, lines, x_label="steps", y_label="leak rate"))
    figure = {"mime": "image/png", "base64": PIXEL, "alt": HOSTILE}
    sections.append(Section(id="figure", title="A picture", type="figure", data=figure))
    return Report(
        kind="compare",
        name=f"run {HOSTILE}",
        created="2026-01-02T03:04:05+00:00",
        benchmark=BenchmarkInfo(name="world:forget05", splits={"forget": 30}, notes=[HOSTILE]),
        environment={"device": "cpu", "note": HOSTILE},
        runs=runs,
        results=results,
        sections=sections,
    )
