"""Files are written whole or not at all, names are looked up with a hint, fingerprints follow the content."""

import json
import os

import pytest

from eval.artifacts import (
    atomic_dir,
    environment,
    fingerprint,
    read_json,
    writable_dir,
    write_json,
    write_text,
)
from eval.errors import ArtifactError, ConfigError, UnknownNameError, UnlearnError
from eval.registry import Registry
from eval.types import Example, Message, conversation


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a.json", "old")

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_folder_takes_its_place_only_when_it_is_complete(tmp_path):
    with atomic_dir(tmp_path / "model") as folder:
        (folder / "weights").write_text("1")

    def broken():
        with atomic_dir(tmp_path / "model") as folder:
            (folder / "weights").write_text("2")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        broken()
    assert (tmp_path / "model" / "weights").read_text() == "1"
    with atomic_dir(tmp_path / "model") as folder:
        (folder / "weights").write_text("3")
    assert (tmp_path / "model" / "weights").read_text() == "3"
    assert os.listdir(tmp_path) == ["model"]


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(ArtifactError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="There is no file"):
        read_json(tmp_path / "b.json")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to"):
        writable_dir(tmp_path / "file" / "sub")


def test_fingerprints_follow_the_content():
    one, two = Example(id="1", question="a", answer="b"), Example(id="1", question="a", answer="c")
    assert fingerprint([one]) == fingerprint([Example(id="1", question="a", answer="b")])
    assert fingerprint([one]) != fingerprint([two])
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})


def test_registry_suggests_the_nearest_and_imports_late():
    registry: Registry[object] = Registry("thing", {"loads": "json:loads", "absent": "no_such_module:x"})
    assert registry["loads"] is json.loads
    assert "absent" in registry
    with pytest.raises(
        UnknownNameError, match=r"Unknown thing 'load'. Did you mean 'loads'\? Available: absent, loads"
    ):
        registry["load"]
    assert issubclass(UnknownNameError, KeyError)
    assert issubclass(UnknownNameError, UnlearnError)


def test_every_kind_of_prompt_becomes_a_conversation():
    turns = (Message("user", "Why?"),)
    assert conversation("Why?") == turns
    assert conversation([{"role": "user", "content": "Why?"}]) == turns
    assert conversation(Example(id="0", question="Why?", answer="So.")) == turns
    with pytest.raises(ValueError, match="has no prompt"):
        conversation(Example(id="0", text="A book."))


def test_environment_records_versions():
    found = environment("cpu")
    assert found["device"] == "cpu"
    assert found["versions"]["torch"]
