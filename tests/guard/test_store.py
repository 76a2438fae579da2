import json
import threading

import pytest

from eval.errors import ArtifactError, ConfigError
from eval.types import Example
from guard.core import Guard

PROMPTS = ["Where was Orla Vantreski born?", "Where was Neva Holcroft born?", "Who was Gandhi?"]


@pytest.fixture
def fresh(forget, retain, quick):
    return Guard.build(forget=forget, retain=retain, settings=quick, request="first", refusals=("No.",))


@pytest.fixture
def more(retain):
    return [e for e in retain if e.subject == "Juno Marapel"]


def test_a_guard_survives_saving_and_loading(guard_, tmp_path):
    guard_.save(tmp_path / "store")
    loaded = Guard.load(tmp_path / "store")
    assert loaded.list() == guard_.list()
    for before, after in zip(guard_.check_many(PROMPTS), loaded.check_many(PROMPTS), strict=True):
        assert after == before
    assert not [p for p in (tmp_path / "store").iterdir() if p.suffix in (".pkl", ".pt", ".bin")]


def test_adding_and_removing_a_request(fresh, more):
    question = more[0].question
    assert not fresh.check(question).flagged
    ids = fresh.add("second", more).ids
    assert fresh.check(question).flagged
    assert fresh.list() == {"first": 10, "second": len(more)}
    assert fresh.remove("second") == len(more)
    assert not fresh.check(question).flagged
    assert fresh.check(PROMPTS[0]).flagged
    assert min(fresh.add("third", more).ids) > max(ids), "ids are never used twice"


def test_ids_stay_unused_after_saving_and_loading(fresh, more, tmp_path):
    ids = fresh.add("second", more).ids
    fresh.remove("second")
    fresh.save(tmp_path / "store")
    assert min(Guard.load(tmp_path / "store").add("again", more).ids) > max(ids)


def test_a_request_is_taken_back_to_where_it_was(fresh, more):
    before = fresh.check_many(PROMPTS)
    fresh.add("second", more)
    fresh.remove("second")
    assert fresh.check_many(PROMPTS) == before


def test_unknown_and_repeated_requests_are_refused(fresh, more):
    with pytest.raises(ConfigError, match=r"no request 'nope'.*first"):
        fresh.remove("nope")
    with pytest.raises(ConfigError, match="already"):
        fresh.add("first", more)


@pytest.mark.parametrize("name", ["manifest.json", "forget-*", "retain-*", "entries-*"])
def test_a_half_written_store_is_refused(guard_, tmp_path, name):
    guard_.save(tmp_path / "store")
    next((tmp_path / "store").glob(name)).unlink()
    with pytest.raises(ArtifactError, match="half-written"):
        Guard.load(tmp_path / "store")


@pytest.mark.parametrize("name", ["forget-*", "retain-*", "entries-*"])
def test_a_changed_file_is_refused(guard_, tmp_path, name):
    guard_.save(tmp_path / "store")
    path = next((tmp_path / "store").glob(name))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="checksum"):
        Guard.load(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoder": "other@1"}, "other@1"),
        ({"kind": "grun"}, "not a guard store"),
        ({"schema_version": 99}, "version 99"),
        ({"num_entries": 3}, "rebuild"),
        ({"classifier": {}}, "lacks the gate's state"),
    ],
    ids=["encoder", "kind", "version", "counts", "gate"],
)
def test_a_mismatching_manifest_is_refused(guard_, tmp_path, change, sentence):
    guard_.save(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=sentence):
        Guard.load(tmp_path / "store")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="There is no guard store"):
        Guard.load(tmp_path / "nothing")


def test_saving_over_a_store_replaces_it_whole(fresh, more, tmp_path):
    fresh.save(tmp_path / "store")
    fresh.add("second", more)
    fresh.save(tmp_path / "store")
    assert Guard.load(tmp_path / "store").list() == {"first": 10, "second": len(more)}
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    generations = {p.name for p in (tmp_path / "store").glob("forget-*")}
    assert generations == {"forget-000001-0.faiss", "forget-000002-0.faiss"}
    fresh.save(tmp_path / "store")
    assert {p.name for p in (tmp_path / "store").glob("forget-*")} == generations, "both still count"


def test_threads_may_check_while_another_adds(fresh, more):
    expected = [d.flagged for d in fresh.check_many(PROMPTS)]
    errors = []

    def look(k):
        try:
            for i in range(5):
                prompt = Example(id="x", question=f"{PROMPTS[k % 3]}{' ' * (i + 1)}")
                if fresh.check(prompt).flagged != expected[k % 3]:
                    errors.append((k, i))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    fresh.add("second", more)
    fresh.remove("second")
    for thread in threads:
        thread.join()
    assert errors == []
