"""`unlearn attack` on a finished run: the table, its files, resume, and what it says where nothing can be said."""

import json

import pytest

from eval.data import load_benchmark
from eval.errors import ConfigError
from eval.report import RunInfo
from eval.report.attack_section import attack_sections
from unlearn.attacking import AttackSettings, attacked_questions


@pytest.fixture
def compared(run, project, tmp_path):
    ran = run("compare", *project.flags, "--oracle", project.model, "--methods", "graddiff,grun-gd,guard",
              "--set", "graddiff.epochs=1", "--max-new-tokens", 8, "--output-dir", tmp_path / "run")  # fmt: skip
    assert ran.code == 0, ran.err
    return tmp_path / "run"


def test_every_model_of_a_run_is_attacked_and_nothing_twice(run, compared):
    flags = ["--attacks", "paraphrase,sampling,quantize-int8,edit,relearn-half,logit-lens", "--limit", 3]
    ran = run("attack", compared, *flags, "--max-new-tokens", 4, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["kind"] == "attack"
    table = next(section for section in report["sections"] if section["id"] == "attacks")
    names = [row["attack"] for row in table["data"]["rows"]]
    assert names[0] == "plain"
    assert {"paraphrase", "sample-8", "quantize-int8", "edit-off", "merge-start", "relearn-half"} <= set(
        names
    )
    files = sorted(compared.rglob("attacks/*.json"))
    assert {path.parent.parent.name for path in files} == {"target", "oracle", "graddiff", "grun-gd", "guard"}
    one = json.loads((compared / "graddiff" / "attacks" / "paraphrase.json").read_text())
    scores = [item["score"] for item in one["items"]]
    assert one["result"]["n"] == len(scores) == 3
    assert one["result"]["value"] == pytest.approx(sum(scores) / 3)
    stamps = {path: path.stat().st_mtime_ns for path in files}
    again = run("attack", compared, *flags, "--max-new-tokens", 4)
    assert again.code == 0, again.err
    assert "What survives what" in again.out
    assert stamps == {path: path.stat().st_mtime_ns for path in files}
    assert (compared / "attack" / "report.html").is_file()
    own = compared / "own.jsonl"
    for wording in ("Quel est le lieu ?", "Et son lieu ?"):
        own.write_text(json.dumps({"id": "0", "question": wording}) + "\n")
        flags = ("--attacks", "plain", "--methods", "guard", "--wordings", own, "--max-new-tokens", 4)
        assert run("attack", compared, *flags).code == 0
        found = json.loads((compared / "guard" / "attacks" / "own.json").read_text())
        assert [item["question"] for item in found["items"]] == [wording]  # other words are asked anew


def test_longer_answers_are_asked_for_without_relearning(run, compared, monkeypatch):
    from eval.attacks import relearning

    trained = []
    finetune = relearning.finetune
    monkeypatch.setattr(
        relearning, "finetune", lambda *args, **kw: trained.append(1) or finetune(*args, **kw)
    )
    flags = ("attack", compared, "--attacks", "relearn-half", "--max-new-tokens")
    assert run(*flags, 3).code == 0
    assert (
        len(trained) == 2
    )  # the oracle, the edit and the filter have the target's weights, graddiff its own
    assert {path.parent.parent.parent.name for path in compared.rglob("weights.safetensors")} == {
        "target",
        "graddiff",
    }
    assert run(*flags, 5).code == 0
    assert len(trained) == 2
    items = json.loads((compared / "guard" / "attacks" / "relearn-half.json").read_text())["items"]
    assert len(items) == 2
    assert not list(compared.rglob("partial*"))
    for path in compared.rglob("weights.safetensors"):
        path.unlink()
    assert run(*flags, 6, "--no-keep-weights").code == 0
    assert len(trained) == 2 + 5
    assert not list(compared.rglob("weights.safetensors"))


def test_bad_input_is_refused(run, compared, tmp_path):
    for arguments, said in (
        ((tmp_path / "nowhere",), "is not a run folder"),
        ((compared, "--methods", "npo"), "no finished method 'npo'"),
        ((compared, "--attacks", "capitol"), "capitals"),
        ((compared, "--wordings", tmp_path / "none.jsonl"), "No such file"),
    ):
        ran = run("attack", *arguments)
        assert ran.code == 2, arguments
        assert said in ran.err
        assert ran.err.strip().count("\n") == 0 or "Writing" in ran.err


@pytest.mark.parametrize(
    ("name", "split"),
    [("lume:mini", "forget_Task2_qa"), ("rwku:mini", "forget_level2"), ("world:forget01", "forget")],
)
def test_other_benchmarks_are_attacked_where_leaks_are_looked_for(name, split):
    benchmark = load_benchmark(name)
    assert attacked_questions(benchmark, AttackSettings()) == benchmark.splits[split]
    assert len(attacked_questions(benchmark, AttackSettings(limit=2))) == 2


def test_a_benchmark_without_questions_cannot_be_attacked():
    with pytest.raises(ConfigError, match="wmdp:mini asks no question"):
        attacked_questions(load_benchmark("wmdp:mini"), AttackSettings())


def test_the_list(run):
    rows = json.loads(run("attack", "--list", "--json").out)
    assert {"relearn-half", "capitals", "logit-lens"} <= {row["name"] for row in rows}
    assert "relearn-half" in run("attack", "--list").out


def _found(**values):
    return {who: {name: {"value": v, "n": 10} for name, v in row.items()} for who, row in values.items()}


def test_what_the_target_does_not_answer_is_not_informative():
    found = _found(
        target={"plain": 1.0, "base64": 0.1, "quantize-nf4": 0.9},
        oracle={"plain": 0.1, "base64": 0.0, "quantize-nf4": 0.1},
        npo={"plain": 0.1, "base64": 0.0, "quantize-nf4": 0.8},
    )
    found["target"]["edit-off"] = {"value": None, "n": 0, "reason": "does not apply: nothing is attached"}
    found["oracle"]["edit-off"] = found["target"]["edit-off"]
    found["npo"]["edit-off"] = {"value": 0.95, "n": 10}
    runs = [RunInfo(method="target"), RunInfo(method="oracle"), RunInfo(method="npo", kind="weights")]
    kinds = dict.fromkeys(("plain", "base64", "quantize-nf4", "edit-off"), ("any", "Does something."))
    table, reading = attack_sections(runs=runs, found=found, attacks=kinds)
    rows = {row["attack"]: row for row in table.data["rows"]}
    assert rows["base64"]["npo"] == "not informative"
    assert rows["base64"]["target"] == "0.100"
    assert rows["edit-off"] | {"summary": ""} == rows["edit-off"] | {"summary": "", "npo": "0.950"}
    assert "holds under 1 of 3" in reading.data["items"][0]
    assert "edit-off (0.95, oracle 0.10)" in reading.data["items"][0]
    assert "quantize-nf4 (0.80, oracle 0.10)" in reading.data["items"][0]
    assert "base64" in reading.data["items"][1]
