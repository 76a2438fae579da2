"""kill -9 at any moment of a write loses nothing that was acknowledged; others read while one writes."""

import importlib.util
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eval.errors import ArtifactError, ConfigError
from guard.persistence import load_store, locked_store, save_store, verify_store
from guard.store import Store

WRITER = Path(__file__).with_name("kill_writer.py")
_spec = importlib.util.spec_from_file_location("kill_writer", WRITER)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)
ROOT = Path(__file__).resolve().parents[2]


def new_store(folder):
    store = Store("fake@1", writer.DIMENSION)
    for name in ("a", "b", "c"):
        writer.put(store, name)
    save_store(store, folder, {})


def write_and_kill(folder, start, changes, seconds):
    """Let a writer begin ``changes`` changes, kill it ``seconds`` later, and return its announcements."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(folder), str(start)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    lines = []
    with process:
        while sum(line.startswith(("adding", "removing")) for line in lines) < changes:
            line = process.stdout.readline()
            assert line, "the writer ended by itself"
            lines.append(line.strip())
        time.sleep(seconds)
        process.kill()
        lines.extend(line.strip() for line in process.stdout)
    return lines


def kill_repeatedly(folder, times, seed):
    chance = random.Random(seed)
    new_store(folder)
    expected, used, number, kills_in_write = {"a", "b", "c"}, set(range(1, 10)), 0, 0
    for _ in range(times):
        lines = write_and_kill(folder, number, chance.randint(1, 3), chance.uniform(0.0, 0.03))
        pending = None
        for line in lines:
            word, name = line.split()
            if word in ("adding", "removing"):
                pending = (word, name)
                number += 1
            elif word == "added":
                expected.add(name)
                pending = None
            elif word == "removed":
                expected.discard(name)
                pending = None
        found = set(verify_store(folder)["requests"])
        if pending is not None:
            kills_in_write += 1
            word, name = pending
            either = expected | {name} if word == "adding" else expected - {name}
            assert found in (expected, either), "a change is there whole or not at all"
        else:
            assert found == expected
        expected = found
        store, _ = load_store(folder, str.isalpha)
        ids = set(store.entries)
        assert max(ids | used) < store.next_id, "ids are never used twice"
        used |= ids
        if not found:
            new_store(folder)
            expected = {"a", "b", "c"}
    return kills_in_write


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path):
    assert kill_repeatedly(tmp_path / "store", 4, seed=1) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_writer_killed_a_hundred_times_loses_nothing_acknowledged(tmp_path):
    assert kill_repeatedly(tmp_path / "store", 100, seed=2) >= 30


def test_the_first_save_killed_half_way_can_be_repeated(tmp_path):
    new_store(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="half-written"):
        load_store(tmp_path / "store", str.isalpha)
    new_store(tmp_path / "store")
    assert verify_store(tmp_path / "store")["num_entries"] == 9


def test_readers_see_whole_stores_while_one_writes(tmp_path):
    folder = tmp_path / "store"
    new_store(folder)
    sizes, errors, is_over = set(), [], threading.Event()

    def read():
        while not is_over.is_set():
            try:
                store, _ = load_store(folder, str.isalpha)
                sizes.add(len(store))
                assert len(store.forget_index) == 2 * len(store)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(25):
        with locked_store(folder):
            store, _ = load_store(folder, str.isalpha)
            writer.put(store, f"w{i}")
            save_store(store, folder, {})
    is_over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(sizes) > 1


def test_a_change_made_by_another_writer_is_not_overwritten(tmp_path):
    folder = tmp_path / "store"
    new_store(folder)
    mine, _ = load_store(folder, str.isalpha)
    theirs, _ = load_store(folder, str.isalpha)
    writer.put(theirs, "theirs")
    save_store(theirs, folder, {})
    writer.put(mine, "mine")
    with pytest.raises(ArtifactError, match="changed by another process"):
        save_store(mine, folder, {})
    assert "theirs" in verify_store(folder)["requests"]


def test_a_second_writer_waits_and_then_says_so(tmp_path):
    folder = tmp_path / "store"
    new_store(folder)
    code = (
        "import sys; from guard.persistence import locked_store\n"
        "with locked_store(sys.argv[1]):\n    print('held', flush=True); input()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match="written by another process"),
            locked_store(folder, timeout=0.05),
        ):
            pass
        other.communicate("\n")
    with locked_store(folder):
        pass


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        new_store(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == ["thesis.txt"]
