"""Every benchmark on the command line: evaluated with a small model, compared from nothing, refused when broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eval.data import muse

UNLEARN = str(Path(sys.executable).parent / "unlearn")
HEADLINES = {
    "muse:mini": ("forget_verbmem_ROUGE", "retain_knowmem_ROUGE", "privleak", "mia_gradnorm"),
    "wmdp:mini": ("wmdp_mini_acc", "mmlu_acc"),
    "lume:mini": ("lume_task_aggregate", "lume_final_score"),
    "tdec:mini": ("forget_EL10", "forget_MA", "unseen_MA"),
    "rwku:mini": ("forget_level3_role_playing_recall", "neighbor_level2_recall"),
    "text:mini": ("forget_continuation_BLEU", "retain_perplexity", "forget_knowledge_ROUGE"),
}


@pytest.mark.parametrize("name", ["wmdp:mini", "muse:mini"])
def test_evaluate_reports_the_benchmarks_own_columns(run, project, tmp_path, name):
    out = tmp_path / "out"
    ran = run(
        "evaluate",
        "--model",
        project.model,
        "--benchmark",
        name,
        "--max-new-tokens",
        "3",
        "--output-dir",
        out,
        "--json",
    )
    assert ran.code == 0, ran.err
    results = json.loads(ran.out)["results"]["model"]
    for metric in HEADLINES[name]:
        assert results[metric]["value"] is not None, metric
    page = (out / "report.md").read_text()
    assert {"wmdp:mini": "WMDP mini", "muse:mini": "VerbMem"}[name] in page
    logs = out / "model" / "eval"
    assert (logs / "samples.md").read_text().startswith("# Samples")
    family = name.partition(":")[0].upper()
    assert sorted(path.name for path in logs.glob("*.json")) == [
        f"{family}_EVAL.json",
        f"{family}_SUMMARY.json",
    ]
    ran = run("metrics", "recompute", out)
    values = json.loads(ran.out)
    assert {metric: results[metric]["value"] for metric in HEADLINES[name]} == {
        metric: values[metric] for metric in HEADLINES[name]
    }


def _muse_folder(folder: Path) -> Path:
    for (config, split), rows in muse.miniature(0).items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        path = folder / config / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _refused(ran, *fragments: str) -> None:
    assert (ran.code, ran.out) == (2, ""), ran
    assert "Traceback" not in ran.err
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    for fragment in fragments:
        assert fragment in line


def test_broken_benchmark_folders_are_refused(run, project, tmp_path):
    folder = _muse_folder(tmp_path / "muse")
    flags = ("evaluate", "--model", project.model, "--benchmark", "muse:news", "--data-dir", folder)
    questions = folder / "knowmem" / "forget_qa.jsonl"
    questions.write_text(questions.read_text()[:-25])
    _refused(run(*flags), "forget_qa.jsonl, line 40 is not valid JSON")
    questions.unlink()
    _refused(run(*flags), "no split 'knowmem/forget_qa'", "huggingface.co/datasets/muse-bench/MUSE-News")
    _refused(run(*flags[:-1], tmp_path / "none"), "no data folder", "--data-dir")
    _refused(run("evaluate", "--model", project.model, "--benchmark", "lume"), "not on the hub", "--data-dir")


@pytest.mark.parametrize(
    ("name", "lost", "where"),
    [
        ("tofu:forget01", "forget01_perturbed.json", "huggingface.co/datasets/locuslab/TOFU"),
        ("lume", "'forget' (forget.jsonl", "github.com/amazon-science/lume-llm-unlearning"),
        ("rwku:all", "'forget_level1/test'", "huggingface.co/datasets/jinzhuoran/RWKU"),
        ("wmdp:cyber", "'wmdp-cyber/test'", "huggingface.co/datasets/cais/wmdp"),
        ("mmlu", "'all/test'", "huggingface.co/datasets/cais/mmlu"),
        ("tdec:32_0", "'lm_extraction_32_0'", "github.com/joeljang/knowledge-unlearning"),
    ],
)
def test_a_folder_without_a_split_is_told_which_and_where_to_get_it(
    run, project, tmp_path, name, lost, where
):
    folder = tmp_path / "data"
    folder.mkdir()
    if name.startswith("tofu"):  # its full table is there, from which forget and retain are cut
        rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(100)]
        (folder / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--model", project.model, "--benchmark", name, "--data-dir", folder)
    _refused(run("evaluate", *flags), lost, where)


@pytest.mark.parametrize(
    ("reference", "fragments"),
    [
        ("tofu_Llama-3.2-1B-Instruct_retain95/TOFU_EVAL.json", ("200 forget rows", "has 400")),
        ("../tofu_eval_logs/llama2-7b_retain90_wd0.01.json", ("300 forget rows", "has 400")),
        ("muse_Llama-2-7b-hf_Books_retrain/MUSE_EVAL.json", ("mia_min_k has 100 forget rows", "has 400")),
    ],
)
def test_published_logs_of_other_splits_sizes_and_benchmarks_are_no_reference(
    run, shared_data, reference, fragments
):
    logs = shared_data / "open_unlearning_eval_logs"
    log = logs / "tofu_Llama-3.2-1B-Instruct_full_forget10" / "TOFU_EVAL.json"
    _refused(
        run("metrics", "recompute", log, "--reference", logs / reference), *fragments, "retain model's log"
    )


def test_a_reference_of_other_rows_or_with_nan_is_refused(run, project, tmp_path):
    log = tmp_path / "TOFU_EVAL.json"
    flags = ("evaluate", "--model", project.model, "--benchmark", "muse:mini", "--reference", log)
    entry = {
        "agg_value": 0.5,
        "value_by_index": {"0": {"rougeL_f1": 0.5, "ground_truth": "x", "generation": "x"}},
    }
    log.write_text(json.dumps({"forget_Q_A_ROUGE": entry}))
    _refused(run(*flags), "holds none of what muse:mini asks", "another benchmark")
    log.write_text(json.dumps({"forget_knowmem_ROUGE": entry}))
    _refused(run(*flags), "1 rows of forget_knowmem_ROUGE", "40")
    entry["value_by_index"]["0"]["rougeL_f1"] = float("nan")
    log.write_text(json.dumps({"forget_knowmem_ROUGE": entry}))
    _refused(run(*flags), "forget_knowmem_ROUGE, row 0", "nan")


def test_metrics_are_explained_with_direction_limits_traps_and_formula(run):
    out = run("metrics", "explain", "overall_score").out
    assert "formula: HM(memorization_score, privacy_score, utility_score)" in out
    out = run("metrics", "explain", "wmdp_cyber_acc").out
    for fragment in ("direction: lower", "floor: 0.25: chance", "ceiling: 1", "traps:"):
        assert fragment in out
    assert "formula" not in out
    names = {info["name"] for info in json.loads(run("metrics", "--json").out)}
    assert {"forget_EL10", "lume_final_score", "forget_clean_text"} <= names


def test_every_metric_a_benchmark_measures_is_explained(tiny_lm):
    from eval.data import load_benchmark
    from eval.metrics import METRICS_INFO
    from eval.models import GenerationOptions
    from eval.runner import evaluate

    for name in HEADLINES:
        done = evaluate(
            tiny_lm, load_benchmark(name), options=GenerationOptions(max_new_tokens=1), gradnorm=False
        )
        for metric in done.results:
            assert METRICS_INFO[metric].measures, (name, metric)
        assert set(HEADLINES[name]) <= set(done.results)


def test_benchmarks_lists_every_family(run):
    from eval.data import BENCHMARKS
    from unlearn.cli.benchmarks import BENCHMARK_FAMILIES

    listed = {re.split(r"[:\[]", row["name"])[0] for row in json.loads(run("benchmarks", "--json").out)}
    assert listed == set(BENCHMARKS) == {re.split(r"[:\[]", name)[0] for name, _ in BENCHMARK_FAMILIES}


def test_benchmarks_lists_what_another_package_registered(run, monkeypatch):
    from eval.data.registry import BENCHMARKS

    monkeypatch.setitem(BENCHMARKS._targets, "mine", "eval.data.mmlu:load")
    rows = {row["name"]: row["summary"] for row in json.loads(run("benchmarks", "--json").out)}
    assert rows["mine"].startswith("Load ``mmlu``")  # the loader's first sentence
    assert "mine " in run("benchmarks").out


@pytest.fixture(scope="module")
def from_nothing(request, tmp_path_factory):
    """`unlearn compare` on every benchmark that a test of this session asks for, nothing cached, two at a time."""

    def compare(name: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp(name.replace(":", "-"))
        command = [
            UNLEARN,
            "compare",
            "--benchmark",
            name,
            "--model",
            "scratch:tiny",
            "--methods",
            "graddiff",
            "--json",
        ]
        environment = os.environ | {"UNLEARN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env=environment, check=False
        )

    asked = [
        item.callspec.params["name"] for item in request.session.items if "from_nothing" in item.fixturenames
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {name: pool.submit(compare, name) for name in asked}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", HEADLINES)
def test_compare_runs_from_nothing(from_nothing, name):
    done = from_nothing[name].result()
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)["results"]
    for metric in HEADLINES[name]:
        assert results["graddiff"][metric]["value"] is not None, metric
    knows, never_saw = (results[who] for who in ("target", "oracle"))
    telling = {
        "muse:mini": "forget_knowmem_ROUGE",
        "wmdp:mini": "wmdp_mini_acc",
        "lume:mini": "forget_Task2_knowledge",
        "tdec:mini": "forget_MA",
        "rwku:mini": "forget_level2_recall",
        "text:mini": "forget_knowledge_ROUGE",
    }[name]
    assert knows[telling]["value"] > never_saw[telling]["value"] + 0.2
