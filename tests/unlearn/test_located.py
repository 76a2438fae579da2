"""A run's folder works from any working directory: its config.yaml says where the paths it names led."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from unlearn.config import CompareConfig
from unlearn.located import locate, relocated


@pytest.fixture
def compared(run, project, tmp_path, monkeypatch):
    """A comparison started beside its files, which it names by relative paths."""
    monkeypatch.chdir(tmp_path)
    flags = ["--model", "model", "--oracle", "model", "--benchmark", "jsonl:forget.jsonl", "--retain-file",
             "retain.jsonl", "--methods", "guard", "--max-new-tokens", 4]  # fmt: skip
    ran = run("compare", *flags, "--output-dir", "run", "--json")
    assert ran.code == 0, ran.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run", json.loads(ran.out)


def test_a_run_is_attacked_and_resumed_from_elsewhere(run, compared, tmp_path):
    folder, report = compared
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["model"], config["benchmark"]) == ("model", "jsonl:forget.jsonl")
    assert config["located"] == {
        name: str(tmp_path.resolve() / name) for name in ("model", "forget.jsonl", "retain.jsonl")
    }
    ran = run("attack", folder, "--attacks", "plain", "--max-new-tokens", 3, "--json")
    assert ran.code == 0, ran.err
    assert str(tmp_path) not in ran.out
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.json")}
    for flags in (
        ["--config", folder / "config.yaml"],
        ["--model", "../model", "--oracle", "../model", "--benchmark", "jsonl:../forget.jsonl", "--retain-file",
         "../retain.jsonl", "--methods", "guard", "--max-new-tokens", 4],
    ):  # fmt: skip
        again = run("compare", *flags, "--output-dir", folder, "--json")
        assert again.code == 0, again.err
        assert json.loads(again.out)["results"] == report["results"]
        if flags[0] == "--config":
            assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
            assert yaml.safe_load((folder / "config.yaml").read_text())["located"] == config["located"]


def test_another_model_is_refused_still(run, compared, tmp_path):
    folder, _ = compared
    shutil.copytree(tmp_path / "model", tmp_path / "elsewhere" / "other")
    ran = run("compare", "--config", folder / "config.yaml", "--model", "other", "--output-dir", folder)
    assert ran.code == 2
    assert "holds a run with model 'model'" in ran.err


def test_only_what_is_not_here_is_taken_from_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    located = {"here": "/gone/here", "there": "/known/there", "rows.jsonl": "/known/rows.jsonl"}
    config = CompareConfig(model="here", oracle="there", benchmark="jsonl:rows.jsonl", located=located)
    found = relocated(config)
    assert (found.model, found.oracle, found.benchmark) == ("here", "/known/there", "jsonl:/known/rows.jsonl")
    assert locate(config) == located | {"here": str(tmp_path.resolve() / "here")}
    plain = CompareConfig(model="someone/on-the-hub", data_dir=Path("/absolute"), benchmark="tofu:forget10")
    assert locate(plain) == {}
    assert relocated(plain) == plain
