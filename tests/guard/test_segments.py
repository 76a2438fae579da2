"""A saved store is a set of segments: each save writes what changed, and what counts is always the store."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.errors import ArtifactError, ConfigError
from guard import ivf, persistence, segments
from guard.persistence import load_store, save_store, verify_store
from guard.store import Innocent, Store

WRITER = Path(__file__).with_name("kill_writer.py")
_spec = importlib.util.spec_from_file_location("kill_writer_of_segments", WRITER)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)
ROOT = Path(__file__).resolve().parents[2]


def loaded(folder):
    return load_store(folder, str.isalpha)[0]


def counted(folder):
    return persistence._names(json.loads((folder / "manifest.json").read_text()))


@pytest.fixture
def small(monkeypatch):
    """Segments of eight entries."""
    monkeypatch.setattr(persistence, "SEGMENT", 8)


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_any_order_of_changes_and_saves_reads_back_as_the_store(small, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(ivf, "MIN_VECTORS", 1)
    chance = random.Random(0)
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "first", num=60)
    if kind == "ivf":
        store.use_ivf(min_recall=0.5)
    for step in range(40):
        if chance.random() < 0.6 or len(store.requests) < 2:
            writer.put(store, f"r{step}", num=chance.randint(1, 12))
        else:
            store.remove(chance.choice([*store.requests][-6:]))
        if chance.random() < 0.7:
            save_store(store, tmp_path / "s", {})
            assert verify_store(tmp_path / "s")["num_entries"] == len(store)
            again = loaded(tmp_path / "s")
            assert again.entries == store.entries
            assert again.requests == store.requests
            assert again.next_id == store.next_id
            ids = np.sort(store.forget_index.ids())
            assert np.array_equal(np.sort(again.forget_index.ids()), ids)
            assert np.allclose(again.forget_index.vectors(ids), store.forget_index.vectors(ids), atol=1e-3)
            if chance.random() < 0.3:
                store = again


def test_a_small_change_writes_little(small, tmp_path):
    folder = tmp_path / "s"
    store = Store("fake@1", writer.DIMENSION)
    for i in range(10):
        writer.put(store, f"r{i}", num=8)
    save_store(store, folder, {})
    before = counted(folder)
    writer.put(store, "more", num=2)
    save_store(store, folder, {})
    assert sorted(counted(folder) - before) == ["entries-000002-0.sqlite", "forget-000002-0.faiss"]
    assert before <= counted(folder)
    store.remove("r3")
    save_store(store, folder, {})
    assert counted(folder) < before | {"entries-000002-0.sqlite", "forget-000002-0.faiss"}, "one segment goes"
    for i in range(20):
        writer.put(store, f"s{i}", num=1)
        save_store(store, folder, {})
    sizes = [s["num_entries"] for s in json.loads((folder / "manifest.json").read_text())["segments"]]
    assert sum(sizes) == len(store)
    assert len(sizes) <= 9 + 22 // 4 + 3, "small segments are merged"


def test_innocents_are_written_again_only_when_they_changed(tmp_path):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    store.set_retain([Innocent(question="q", answer="a", group="g")], writer.unit_vectors(1, 0))
    save_store(store, tmp_path, {})
    first = json.loads((tmp_path / "manifest.json").read_text())["innocents"]
    writer.put(store, "b")
    save_store(store, tmp_path, {})
    assert json.loads((tmp_path / "manifest.json").read_text())["innocents"] == first
    store.set_retain([], np.zeros((0, writer.DIMENSION), dtype=np.float32))
    save_store(store, tmp_path, {})
    assert json.loads((tmp_path / "manifest.json").read_text())["innocents"] != first
    assert loaded(tmp_path).retain == ()


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_the_text_of_what_was_removed_is_in_no_file_any_more(small, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(ivf, "MIN_VECTORS", 1)
    store = Store("fake@1", writer.DIMENSION)
    for name in ("keep", "quixotic", "later"):
        writer.put(store, name, num=8)
    if kind == "ivf":
        store.use_ivf(min_recall=0.5)
    save_store(store, tmp_path, {})
    assert any(b"quixotic" in p.read_bytes() for p in tmp_path.iterdir())
    store.remove("quixotic")
    save_store(store, tmp_path, {})
    assert not any(b"quixotic" in p.read_bytes() for p in tmp_path.iterdir())
    writer.put(store, "more")
    before = counted(tmp_path)
    save_store(store, tmp_path, {})
    assert before <= {p.name for p in tmp_path.iterdir()}, "nothing was removed: they stay for readers"


def test_an_ivf_index_is_written_again_only_when_much_changed(small, tmp_path, monkeypatch):
    monkeypatch.setattr(ivf, "MIN_VECTORS", 1)
    store = Store("fake@1", writer.DIMENSION)
    for i in range(10):
        writer.put(store, f"r{i}", num=8)
    store.use_ivf(min_recall=0.5)

    def file():
        save_store(store, tmp_path, {})
        assert verify_store(tmp_path)["num_entries"] == len(store)
        return json.loads((tmp_path / "manifest.json").read_text())["ivf"]

    first = file()
    store.remove("r2")
    second = file()
    assert second["files"] == first["files"]
    assert second["removed"] == [[17, 24]], "struck out: entries 17 to 24"
    writer.put(store, "more", num=8)
    assert file()["files"] == first["files"]
    store.remove("r5")
    third = file()
    assert third["files"] != first["files"], "24 of 80 are gone or missing: more than a quarter"
    assert third["removed"] == []


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    save_store(store, tmp_path / "s", {})
    code = (
        "import sys, signal, resource, importlib.util\n"
        "from guard.persistence import load_store, save_store\n"
        "from eval.errors import ConfigError\n"
        "spec = importlib.util.spec_from_file_location('w', sys.argv[2]); w = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(w)\n"
        "from pathlib import Path\n"
        "store, _ = load_store(Path(sys.argv[1]), str.isalpha)\n"
        "w.put(store, 'big', num=4000)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    save_store(store, Path(sys.argv[1]), {})\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s"), str(WRITER)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "could not be written" in done.stdout
    assert "as it was before" in done.stdout
    names = {p.name for p in (tmp_path / "s").iterdir() if not p.name.startswith(".")}
    assert names == counted(tmp_path / "s") | {"manifest.json"}, "nothing half-written is left"
    assert verify_store(tmp_path / "s")["requests"] == {"a": 3}
    writer.put(store, "b")
    save_store(store, tmp_path / "s", {})
    assert loaded(tmp_path / "s").requests == {"a": 3, "b": 3}


def test_a_failed_save_may_be_repeated(tmp_path, monkeypatch):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    save_store(store, tmp_path, {})
    writer.put(store, "b")

    def full(path, value):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(persistence, "write_json", full)
        with pytest.raises(ConfigError, match="No space left"):
            save_store(store, tmp_path, {})
    assert loaded(tmp_path).requests == {"a": 3}
    save_store(store, tmp_path, {})
    assert loaded(tmp_path).requests == {"a": 3, "b": 3}


def test_other_processes_read_whole_stores_while_one_writes(tmp_path):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    save_store(store, tmp_path, {})
    code = (
        "import sys\nfrom pathlib import Path\nfrom guard.persistence import load_store\n"
        "seen = set()\n"
        "while True:\n"
        "    store, manifest = load_store(Path(sys.argv[1]), str.isalpha)\n"
        "    assert len(store.forget_index) == 2 * len(store) == 2 * manifest['num_entries']\n"
        "    seen.add(len(store))\n"
        "    print('read', flush=True)\n"
        "    if 'end' in store.requests: break\n"
        "print(sorted(seen))\n"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "read\n"
    for i in range(40):
        writer.put(store, f"r{i}")
        if i % 3 == 2:
            store.remove(f"r{i - 1}")
        save_store(store, tmp_path, {})
    writer.put(store, "end")
    save_store(store, tmp_path, {})
    for reader in readers:
        out, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        seen = json.loads(out.splitlines()[-1])
        assert seen[0] == 3
        assert seen[-1] == len(store)


def test_two_writers_in_two_processes_lose_nothing_of_each_other(tmp_path):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    save_store(store, tmp_path, {})
    code = (
        "import sys, importlib.util\nfrom pathlib import Path\n"
        "from guard.persistence import load_store, locked_store, save_store\n"
        "spec = importlib.util.spec_from_file_location('w', sys.argv[2]); w = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(w)\n"
        "for i in range(8):\n"
        "    with locked_store(sys.argv[1], timeout=60) as folder:\n"
        "        store, _ = load_store(folder, str.isalpha)\n"
        "        w.put(store, f'{sys.argv[3]}{i}')\n"
        "        save_store(store, folder, {})\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(WRITER), name],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name in "xy"
    ]
    assert [w.wait(timeout=120) for w in writers] == [0, 0]
    found = loaded(tmp_path)
    assert set(found.requests) == {"a", *(f"{name}{i}" for name in "xy" for i in range(8))}
    assert sorted(found.entries) == list(range(1, 52)), "every id once"


@pytest.mark.parametrize("key", ["segments", "innocents", "ivf", "next_id", "index"])
def test_a_manifest_that_lacks_a_part_is_refused(tmp_path, key):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a")
    save_store(store, tmp_path, {})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest[key]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="lacks what"):
        loaded(tmp_path)


def test_a_damaged_database_behind_a_right_checksum_is_refused(tmp_path):
    store = Store("fake@1", writer.DIMENSION)
    writer.put(store, "a", num=200)
    save_store(store, tmp_path, {})
    path = next(tmp_path.glob("entries-*"))
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xff" * 3900
    path.write_bytes(content)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["segments"][0]["files"]["entries"]["sha256"] = segments._sha256(path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"cannot be read|is damaged"):
        verify_store(tmp_path)
