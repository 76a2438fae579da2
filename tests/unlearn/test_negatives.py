"""`unlearn negatives`: a file to look at, and a run that trains on it and says where it came from."""

import json

import pytest

from eval.report import Section
from unlearn.runs import read_sections


def test_the_generated_world_needs_no_model(run, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("negatives", "--benchmark", "world:forget01", "--output", out, "--set", "levels=2", "--json")
    assert result.code == 0
    summary = json.loads(result.out)
    assert summary["writer"] == "rules of the generated world"
    assert [row["level"] for row in summary["levels"]] == [1, 2]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 18
    assert all(1 <= len(line["negatives"]) <= 2 for line in lines)
    assert summary["levels"][0]["kept"] == sum(len(line["negatives"]) >= 1 for line in lines)


def test_alternates_go_to_their_own_file(run, tmp_path):
    result = run(
        "negatives", "--benchmark", "world:forget01", "--kind", "alternates", "--set", "alternates=2"
    )
    assert result.code == 0
    lines = (tmp_path / "cwd" / "alternates.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])["alternates"]) == 2
    assert "--set alternates_file=alternates.jsonl" in result.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "unlearn negatives --kind negatives"),
        (("--generator", "self", "--model", "scratch"), "follows no instructions"),
        (("--set", "levels=0"), "levels and retries of at least 1"),
        (("--set", "beta=1"), "Unknown setting 'beta' of gnm"),
        (("--prompt", "nowhere.txt"), "prompt file nowhere.txt cannot be read"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(run, project, flags, message):
    result = run("negatives", *project.flags, *flags)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_comparison_reports_the_negatives_and_the_ranks(run, project, tmp_path):
    rows = [json.loads(line) for line in project.forget.read_text().splitlines()]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"id": r["id"], "negatives": ["Nobody knows."]}) + "\n" for r in rows))
    result = run(
        "compare", *project.flags, "--methods", "gnm", "--output-dir", tmp_path / "run", "--max-new-tokens", 4,
        "--set", f"negatives_file={own}", "--set", "epochs=2", "--set", "batch_size=4", "--set", "targets=mlp",
    )  # fmt: skip
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    sections = {section["id"]: section for section in report["sections"]}
    assert sections["gnm-negatives"]["data"]["rows"][0]["kept"] == 4
    assert [row["matrix"] for row in sections["gnm-ranks"]["data"]["rows"]] == [
        "gate_proj",
        "up_proj",
        "down_proj",
    ]


def test_a_method_without_sections_has_none(tmp_path):
    assert read_sections(tmp_path) == []
    (tmp_path / "sections.json").write_text(json.dumps([{"id": "a", "title": "A", "type": "list"}]))
    assert read_sections(tmp_path) == [Section(id="a", title="A", type="list")]
