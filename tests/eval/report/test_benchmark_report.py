"""Reports of benchmarks other than TOFU's kind: their own columns, curves, answers and samples."""

from __future__ import annotations

from typing import Any

from eval.report import BenchmarkInfo, Report, RunInfo
from eval.report.dynamics import dynamics_sections
from eval.report.samples import samples_page
from eval.report.sections import answers_section
from eval.report.table import main_table

RUNS = [RunInfo(method="target"), RunInfo(method="oracle"), RunInfo(method="ga"), RunInfo(method="npo")]


def report(**values: list[float]) -> Report:
    results = {
        run.method: {name: {"value": row[i], "ci": None, "n": 3} for name, row in values.items()}
        for i, run in enumerate(RUNS)
    }
    return Report(
        kind="compare",
        name="x",
        created="",
        benchmark=BenchmarkInfo(name="wmdp:bio"),
        environment={},
        runs=RUNS,
        results=results,
        sections=[],
    )


def test_a_benchmarks_metrics_open_columns_as_their_descriptions_say() -> None:
    columns, rows = main_table(
        report(
            mmlu_acc=[0.5, 0.5, 0.3, 0.4],
            wmdp_bio_acc=[0.6, 0.2, 0.3, 0.4],
            wmdp_cyber_acc=[0.6, 0.2, 0.5, 0.4],
            forget_perplexity=[1.2, 9.0, 99.0, 10.0],
            privleak=[-99.0, 0.0, 50.0, 5.0],
            mia_loss=[1.0, 0.5, 0.4, 0.5],
        )
    )
    assert [(column.label, column.better) for column in columns] == [
        ("WMDP bio", "down"),
        ("WMDP cyber", "down"),
        ("MMLU", "up"),
        ("Perplexity forget", "oracle"),
        ("PrivLeak", None),
    ]
    best = {c.label: [r.run.method for r in rows if r.cells[i].is_best] for i, c in enumerate(columns)}
    assert best == {
        "WMDP bio": ["ga"],
        "WMDP cyber": ["npo"],
        "MMLU": ["npo"],
        "Perplexity forget": ["npo"],
        "PrivLeak": [],
    }
    assert "likeliest of four" in columns[0].tooltip


def test_tofus_table_stays_as_it_is() -> None:
    columns, _ = main_table(report(model_utility=[0.6] * 4, privleak=[0.0] * 4, leak_rate=[0.1] * 4))
    assert [column.key for column in columns] == ["model_utility", "leak_rate"]


def test_lumes_terms_are_drawn_against_steps() -> None:
    values: list[dict[str, Any]] = [
        {"step": 5 * i, "values": {"forget_Task1_knowledge": 0.9 - i / 10, "lume_task_aggregate": i / 10}}
        for i in range(3)
    ]
    levels = {"oracle": {"forget_Task1_knowledge": {"value": 0.1}}}
    sections = dynamics_sections([RunInfo(method="ga")], {"ga": values}, levels, sample="On three rows.")
    assert [section.title for section in sections] == [
        "Forget Task1 knowledge against steps",
        "Lume task aggregate against steps",
        "Values along the steps",
    ]
    assert sections[0].data["lines"][0] | {"name": ""} == {
        "name": "",
        "label": "ga",
        "x": [0, 5, 10],
        "y": [0.9, 0.8, 0.7],
    }
    assert sections[0].data["guides"][0]["value"] == 0.1
    columns = [column["key"] for column in sections[-1].data["columns"]]
    assert columns == ["method", "step", "forget_Task1_knowledge", "lume_task_aggregate"]


def test_answers_are_those_in_which_leaks_were_looked_for() -> None:
    def texts(*said: str) -> dict[str, Any]:
        items = [
            {"input": f"Q{i}", "ground_truth": "Rome", "generation": text} for i, text in enumerate(said)
        ]
        return {"value_by_index": {str(i): item | {"rougeL_recall": 1.0} for i, item in enumerate(items)}}

    leaks = {"value_by_index": {"0": {"score": 1.0, "spans": ["Rome"]}, "1": {"score": 0.0, "spans": []}}}
    log = {
        "forget_verbmem_ROUGE": texts("on and on"),
        "forget_knowmem_ROUGE": texts("Rome", "Oslo"),
        "leak_rate": leaks,
    }
    section = answers_section([RunInfo(method="ga")], {"ga": log})
    assert section is not None
    said = [item["answers"]["ga"]["text"] for item in section.data["items"]]
    assert said == ["Rome", "Oslo"]
    assert [item["answers"]["ga"]["leaked"] for item in section.data["items"]] == [True, False]


def test_samples_are_spread_over_each_split() -> None:
    samples = [
        {
            "split": split,
            "id": f"{split}-{i}",
            "input": "x" * 900 + f"Who is {i}?",
            "ground_truth": "Ann",
            "generation": "" if i == 0 else "```code```",
            "leaked": ["Ann"] if i == 10 else [],
        }
        for split, count in (("forget", 25), ("retain", 2))
        for i in range(count)
    ]
    page = samples_page(samples)
    assert [line for line in page.splitlines() if line.startswith("**")] == [
        "**forget-0**",
        "**forget-5**",
        "**forget-10** (leaked: Ann)",
        "**forget-15**",
        "**forget-20**",
        "**retain-0**",
        "**retain-1**",
    ]
    assert "[...] " in page
    assert "Who is 15?\n" in page  # a long prompt keeps its end
    assert "(nothing)" in page
    assert "````\n```code```\n````" in page
