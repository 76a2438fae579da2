"""`prepare`, `train`, `generate` and the lists, as a user calls them."""

import json
import re

import pytest

from guard.refusals import REFUSALS


def test_prepare_teaches_a_saved_model_twice(run, project, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))
    flags = ["prepare", *project.flags, "--set", "epochs=2", "--set", "lr=1e-3", "--json"]
    ran = run(*flags, "--output-dir", tmp_path / "out")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert not summary["from_cache"]
    for name in ("target", "oracle"):
        assert (tmp_path / "out" / name / "model.safetensors").is_file()
    assert json.loads(run(*flags).out)["from_cache"]
    assert not json.loads(run(*flags[:-2], "lr=2e-3", "--json").out)["from_cache"]


@pytest.mark.parametrize(
    ("pair", "says"), [("epoch=1", "epochs"), ("base.epochs=1", "no stage 'base'"), ("x", "key=value")]
)
def test_prepare_refuses_unknown_settings(run, project, pair, says):
    ran = run("prepare", *project.flags, "--set", pair)
    assert ran.code == 2
    assert says in ran.err


def test_train_leaves_an_artifact_that_evaluate_and_generate_take(run, project, tmp_path):
    ran = run("train", "npo", *project.flags, "--parametrization", "lora", "--set", "epochs=1",
              "--output-dir", tmp_path / "npo", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["kind"] == "weights"
    adapter = tmp_path / "npo" / "npo" / "adapter"
    assert (adapter / "adapter_model.safetensors").is_file()
    ran = run("evaluate", *project.flags, "--adapter", adapter, "--max-new-tokens", 8,
              "--output-dir", tmp_path / "out", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert list(report["results"]) == ["model"]
    assert report["runs"][0]["kind"] == "weights"
    assert (tmp_path / "out" / "model" / "eval" / "TOFU_EVAL.json").is_file()
    ran = run(
        "generate", "Where was person 1 born?", "--model", project.model, "--adapter", adapter, "--json"
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)[0]["prompt"] == "Where was person 1 born?"


def test_a_guard_from_train_filters_generate(run, project, tmp_path):
    assert run("train", "guard-refuse", *project.flags, "--output-dir", tmp_path / "g").code == 0
    question = "Where was person 1 born?"
    flags = ["generate", question, "--model", project.model, "--max-new-tokens", 8]
    guarded = run(*flags, "--guard", tmp_path / "g" / "guard-refuse", "--policy", "refuse")
    assert guarded.code == 0, guarded.err
    assert guarded.out.strip() in REFUSALS
    assert run(*flags).out != guarded.out
    assert run(*flags, "--guard", tmp_path / "g", "--policy", "forbid").code == 2


def test_the_lists_are_json(run):
    methods = json.loads(run("methods", "--json").out)
    assert {m["name"]: m["kind"] for m in methods}.items() >= {
        "npo": "weights", "ga": "weights", "grun-npo": "edit", "guard": "suppression", "guard-refuse": "suppression",
    }.items()  # fmt: skip
    assert all(set(m) == {"name", "kind", "summary", "paper"} for m in methods)
    benchmarks = {re.split(r"[:\[]", b["name"])[0] for b in json.loads(run("benchmarks", "--json").out)}
    assert benchmarks == {"world", "tofu", "muse", "lume", "wmdp", "mmlu", "rwku", "tdec", "text", "jsonl"}
    assert any(m["name"] == "forget_quality" for m in json.loads(run("metrics", "--json").out))
    assert "Kolmogorov" in run("metrics", "explain", "forget_quality").out
    refused = run("metrics", "explain", "forget_qualty")
    assert refused.code == 2
    assert "Did you mean 'forget_quality'" in refused.err


def test_generate_without_a_prompt_is_refused(run, project, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ran = run("generate", "--model", project.model)
    assert ran.code == 2
    assert "No prompt was given" in ran.err


def test_help_is_quick_and_loads_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys; from unlearn.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.strip().endswith("False")
