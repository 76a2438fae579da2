"""A store on disk: read by anybody at any time, never half; a change writes what changed.

``manifest.json`` (encoder, dimension, counts, checksums, the gate) names the files that count: segments of entries in
the order of their ids (``entries-*.sqlite``, and ``forget-*.faiss`` with their vectors), the innocent neighbours
(``retain-*``) and, where one was asked for, the IVF index (``ivf-*.faiss``). A writer holds the folder's lock, writes
new files beside the old ones, and then replaces the manifest in one step: whoever is killed before that leaves the old
store, after it the new one. Files of the manifest before stay for readers that are just opening it, unless something
was removed: then they go at once, and such a reader begins again. A private store has its key in ``veil.key``.

A save writes new entries, and the segments anew that something was removed from: no file holds a removed entry's text
any more. Where new entries outnumber the segment before, they are merged with it, so that there are few small
segments. An IVF index is written again once a quarter of it is gone or missing; until then removed vectors are struck
out and newer ones read from their segments.
"""

from __future__ import annotations

import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from eval.artifacts import read_json, writable_dir, write_json
from eval.errors import ArtifactError, ConfigError
from guard.hashing import Veil
from guard.indexes import ExactIndex, IndexInfo
from guard.ivf import IvfIndex
from guard.segments import (
    SEGMENT,
    check_database,
    checked,
    read_entries,
    read_innocents,
    read_key,
    read_vectors,
    to_disk,
    write_innocents,
    write_ivf,
    write_key,
    write_segment,
)
from guard.store import Saved, Store, summary

__all__ = ["load_store", "locked_store", "read_manifest", "save_store", "verify_store"]

SCHEMA_VERSION = 3
KEY_FILE = "veil.key"
_FILE = re.compile(r"(?:forget|retain|entries|ivf)-(\d{6})(?:-\d+)?\.(?:faiss|sqlite)(?:-journal)?")
_ATTEMPTS = 20


@contextmanager
def locked_store(directory: Path | str, *, timeout: float = 10.0) -> Iterator[Path]:
    """Hold a store's folder for writing; readers are not held up. Nested calls of one process are one.

    Raises:
        ConfigError: If another process writes to it for longer than ``timeout`` seconds, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = writable_dir(Path(directory))
    lock = FileLock(folder.resolve() / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise ConfigError(
            f"The guard store {folder} is being written by another process; wait for it and try again."
        ) from None
    try:
        yield folder
    finally:
        lock.release()


def save_store(store: Store, directory: Path, extra: dict[str, Any]) -> int:
    """Write the store and return its generation; when this returns, it is on the disk.

    Args:
        store: What to write.
        directory: Its folder; another store there is replaced, anything else is refused.
        extra: The gate's state, for the manifest.

    Raises:
        ConfigError: If the folder is in use or cannot be written.
        ArtifactError: If it holds something else, or was changed by another process since this store was read.
    """
    with locked_store(directory) as folder:
        before, old = _manifest_there(folder)
        saved = store.saved if store.saved is not None and store.saved.folder == folder.resolve() else None
        if saved is not None and saved.generation != before:
            raise ArtifactError(
                f"The guard store {folder} was changed by another process since it was read (generation "
                f"{saved.generation}, now {before}); load it again and repeat the change."
            )
        number = 1 + max([before, *(int(m[1]) for p in folder.iterdir() if (m := _FILE.fullmatch(p.name)))])
        try:
            ivf = _ivf_file(store, saved, old, folder, number)
            segments = list(_segments(store, saved, old, folder, number, _next_id(ivf)))
            innocents = old["innocents"] if saved is not None and saved.has_innocents else None
            innocents = innocents or {"files": write_innocents(store, folder, f"{number:06d}")}
            if store.veil is not None:
                write_key(folder / KEY_FILE, store.veil.key)
            manifest = {
                "kind": "guard-store",
                "schema_version": SCHEMA_VERSION,
                "generation": number,
                **summary(store),
                "index": asdict(store.forget_index.info),
                "segments": segments,
                "ivf": ivf,
                "innocents": innocents,
                **extra,
            }
            write_json(folder / "manifest.json", manifest)
        except (OSError, sqlite3.Error) as error:
            for path in folder.glob(f"*-{number:06d}*"):
                path.unlink(missing_ok=True)
            raise ConfigError(
                f"The guard store {folder} could not be written ({error}); it is as it was before: make room there "
                "and save again."
            ) from None
        to_disk(folder)
        store.saved = Saved(
            folder=folder.resolve(), generation=number, next_id=store.next_id, removed=_struck(ivf)
        )
        has_removed = saved is None or len(saved.removed) > len(_struck(old["ivf"]))
        _clear(folder, keep=_names(manifest) | (set() if has_removed else _names(old)))
        return number


def load_store(directory: Path, is_common: Callable[[str], bool]) -> tuple[Store, dict[str, Any]]:
    """Read a folder written by `save_store`; return the store and its manifest.

    Args:
        directory: The folder.
        is_common: Tells frequent words of the language, for a private store.

    Raises:
        ArtifactError: If the folder is missing, half-written, changed since, or not a store.
    """
    folder = Path(directory)
    for attempt in range(_ATTEMPTS):
        manifest = read_manifest(folder)
        try:
            return _read(folder, manifest, is_common), manifest
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}/manifest.json lacks what a guard store's has ({error}); rebuild the store."
            ) from None
        except ArtifactError:
            # a writer may have replaced this generation while it was being read
            if attempt == _ATTEMPTS - 1 or read_manifest(folder).get("generation") == manifest.get(
                "generation"
            ):
                raise
    raise AssertionError("unreachable")


def verify_store(directory: Path) -> dict[str, Any]:
    """Check a store thoroughly: files, checksums, the database, ids, and vectors; return what was found.

    Raises:
        ArtifactError: At the first fault, in one sentence.
    """
    store, manifest = load_store(directory, lambda word: True)
    folder = Path(directory)
    for path in sorted(folder / name for name in _names(manifest) if name.endswith(".sqlite")):
        check_database(path)
    keys = np.sort(store.forget_index.ids())
    ids = np.fromiter(store.entries, dtype=np.int64, count=len(store))
    if not np.array_equal(keys, np.sort(np.concatenate([2 * ids, 2 * ids + 1]))):
        raise ArtifactError(
            f"The index of the guard store {folder} does not hold the vectors of its entries; rebuild it."
        )
    for vectors, _ in store.forget_index.batches():
        if float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max()) > 1e-3:
            raise ArtifactError(
                f"The guard store {folder} holds vectors that are not of unit length; rebuild it."
            )
    if max(store.entries, default=0) >= store.next_id:
        raise ArtifactError(f"The guard store {folder} would use an id twice; rebuild it.")
    names = (
        "generation",
        "encoder",
        "dimension",
        "is_private",
        "next_id",
        "num_entries",
        "num_retain",
        "index",
    )
    return {"ok": True, **{name: manifest[name] for name in names}, "requests": store.requests}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a store's manifest.

    Raises:
        ArtifactError: If there is none, or it is not one of this version.
    """
    if not folder.is_dir():
        raise ArtifactError(f"There is no guard store {folder}; build one first, or check the path.")
    if not (folder / "manifest.json").is_file():
        raise ArtifactError(
            f"{folder} has no manifest.json, so it is no guard store or a half-written one; rebuild it."
        )
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("kind") != "guard-store":
        raise ArtifactError(
            f"{folder}/manifest.json is not a guard store's; name the folder that Guard.save wrote."
        )
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"The guard store {folder} has schema version {manifest.get('schema_version')}, "
            f"this version reads {SCHEMA_VERSION}; rebuild it."
        )
    return manifest


def _manifest_there(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return generation and manifest of what stands in a folder; 0 and an empty one if nothing does.

    Raises:
        ArtifactError: If something else stands there.
    """
    nothing: dict[str, Any] = {"segments": [], "ivf": None, "innocents": {}}
    path = folder / "manifest.json"
    if path.is_file():
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("kind") != "guard-store":
            raise ArtifactError(f"{folder} holds something that is no guard store; choose another folder.")
        is_readable = manifest.get("schema_version") == SCHEMA_VERSION
        return int(manifest.get("generation", 0)), manifest if is_readable else nothing
    others = [
        p.name
        for p in folder.iterdir()
        if not (_FILE.fullmatch(p.name) or p.name.startswith(".") or p.name == KEY_FILE)
    ]
    if others:
        raise ArtifactError(
            f"{folder} is not empty ({sorted(others)[0]}) and holds no guard store; choose another folder."
        )
    return 0, nothing


def _segments(
    store: Store, saved: Saved | None, old: dict[str, Any], folder: Path, number: int, covered: int
) -> Iterator[dict[str, Any]]:
    """Yield what the manifest says about each segment, after writing those that are not there as they should be.

    Args:
        store: Whose entries.
        saved: What stands in the folder; ``None``: nothing of this store.
        old: The folder's manifest.
        folder: Where to.
        number: Of the generation, for the names of the files.
        covered: First entry id whose vectors are not in the IVF index's file.
    """
    there = [] if saved is None else [s for s in old["segments"] if s["next_id"] <= saved.next_id]
    fresh = range(_next_id(there[-1] if there else None), store.next_id)
    size = sum(i in store.entries for i in fresh)
    while size and there and there[-1]["num_entries"] <= min(size, SEGMENT - 1):
        size += there[-1]["num_entries"]
        fresh = range(there.pop()["first_id"], store.next_id)
    removed = sorted(saved.removed) if saved is not None else []
    place = count()

    def written(ids: Sequence[int], first_id: int, next_id: int) -> dict[str, Any]:
        files = write_segment(store, ids, covered, folder, f"{number:06d}-{next(place)}")
        return {"first_id": first_id, "next_id": next_id, "num_entries": len(ids), "files": files}

    for segment in there:
        first_id, next_id = segment["first_id"], segment["next_id"]
        if bisect_left(removed, first_id) == bisect_left(removed, next_id):
            yield segment
            continue
        ids = [i for i in range(first_id, next_id) if i in store.entries]
        if len(ids) == segment["num_entries"]:
            yield segment
        elif ids:
            yield written(ids, first_id, next_id)
    ids = [i for i in fresh if i in store.entries]
    for start in range(0, len(ids), SEGMENT):
        part = ids[start : start + SEGMENT]
        yield written(part, part[0], part[-1] + 1)


def _ivf_file(
    store: Store, saved: Saved | None, old: dict[str, Any], folder: Path, number: int
) -> dict[str, Any] | None:
    """Return what the manifest says about the IVF index, after writing it where that is due; ``None`` without one."""
    index = store.forget_index
    if not isinstance(index, IvfIndex):
        return None
    there = old["ivf"]
    if saved is not None and there is not None and there["next_id"] <= saved.next_id:
        struck = [i for i in saved.removed if i < there["next_id"]]
        fresh = sum(i in store.entries for i in range(there["next_id"], store.next_id))
        if 4 * (len(struck) + fresh) <= there["num_entries"]:
            return {**there, "removed": _ranges(struck)}
    return {
        "next_id": store.next_id,
        "num_entries": len(store),
        "removed": [],
        "files": write_ivf(index, folder, f"{number:06d}"),
    }


def _next_id(part: dict[str, Any] | None) -> int:
    """Return the first entry id that a segment or an index no longer holds."""
    return 1 if part is None else int(part["next_id"])


def _struck(ivf: dict[str, Any] | None) -> list[int]:
    """Return the ids of the removed entries whose vectors are still in the IVF index's file."""
    return [] if ivf is None else [i for first, last in ivf["removed"] for i in range(first, last + 1)]


def _names(manifest: dict[str, Any]) -> set[str]:
    """Return the names of a manifest's files."""
    parts = [*manifest["segments"], manifest["innocents"], manifest["ivf"] or {}]
    return {str(file["name"]) for part in parts for file in part.get("files", {}).values()}


def _ranges(ids: Iterable[int]) -> list[list[int]]:
    """Return numbers as first and last of each run."""
    runs: list[list[int]] = []
    for i in sorted(ids):
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return runs


def _read(folder: Path, manifest: dict[str, Any], is_common: Callable[[str], bool]) -> Store:
    store = Store(manifest["encoder"], int(manifest["dimension"]))
    info, ivf = IndexInfo(**manifest["index"]), manifest["ivf"]
    if ivf is not None:
        path = checked(folder, ivf["files"])["index"]
        store.forget_index = IvfIndex.read(path, store.dimension, info)
    removed = _struck(ivf)
    for segment in manifest["segments"]:
        paths = checked(folder, segment["files"])
        if "vectors" in paths:
            read_vectors(store.forget_index, paths["vectors"], first=2 * _next_id(ivf))
        store.register(read_entries(paths["entries"]))
    if removed:
        dead = np.array(removed, dtype=np.int64)
        store.forget_index.remove(np.concatenate([2 * dead, 2 * dead + 1]))
    store.next_id = int(manifest["next_id"])
    paths = checked(folder, manifest["innocents"]["files"])
    innocent = ExactIndex(store.dimension)
    read_vectors(innocent, paths["vectors"])
    neighbours = read_innocents(paths["rows"])
    retain, texts = neighbours[: manifest["num_retain"]], neighbours[manifest["num_retain"] :]
    counts = (len(store), len(store.forget_index), len(retain), len(innocent), len(texts))
    entries, num_retain = manifest["num_entries"], manifest["num_retain"]
    if counts != (entries, 2 * entries, num_retain, num_retain, manifest["num_innocent_texts"]):
        raise ArtifactError(
            f"The guard store {folder} holds {counts[0]} entries and {counts[2]} neighbours with {counts[1]} and "
            f"{counts[3]} vectors, its manifest says {entries} and {num_retain}; rebuild it."
        )
    store.set_retain(retain, innocent.vectors(np.arange(num_retain, dtype=np.int64)), texts)
    if manifest["is_private"]:
        store.veil = Veil(read_key(folder / KEY_FILE), is_common)
    store.saved = Saved(
        folder=folder.resolve(),
        generation=int(manifest["generation"]),
        next_id=store.next_id,
        removed=removed,
    )
    return store


def _clear(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if _FILE.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
