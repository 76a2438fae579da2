"""A store on disk: written whole, read by anybody at any time, never half.

``manifest.json`` (encoder, dimension, counts, checksums, the gate) names the files of one generation:
``forget-N.faiss``, ``retain-N.faiss`` (vectors) and ``entries-N.sqlite`` (everything else). A writer holds the
folder's lock, writes the next generation's files beside the old ones, and then replaces the manifest in one step:
whoever is killed before that leaves the old store, after it the new one. The generation before stays for readers
that are just opening it. A private store has its key in ``veil.key``.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eval.artifacts import read_json, writable_dir, write_json
from eval.errors import ArtifactError, ConfigError
from guard.hashing import Veil
from guard.indexes import IndexInfo, VectorIndex
from guard.store import Entry, Innocent, Store, summary

__all__ = ["load_store", "locked_store", "read_manifest", "save_store", "verify_store"]

SCHEMA_VERSION = 2
ROLES = {"forget": "forget-{}.faiss", "retain": "retain-{}.faiss", "entries": "entries-{}.sqlite"}
KEY_FILE = "veil.key"
_FILE = re.compile(r"(?:forget|retain|entries)-(\d{6})\.(?:faiss|sqlite)(?:-journal)?")
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
        before = _generation(folder)
        if store.origin is not None and store.origin[0] == folder.resolve() and store.origin[1] != before:
            raise ArtifactError(
                f"The guard store {folder} was changed by another process since it was read (generation "
                f"{store.origin[1]}, now {before}); load it again and repeat the change."
            )
        number = 1 + max([before, *(int(m[1]) for p in folder.iterdir() if (m := _FILE.fullmatch(p.name)))])
        files = {role: folder / name.format(f"{number:06d}") for role, name in ROLES.items()}
        innocents, vectors, _ = store.all_innocents()
        retain = VectorIndex(store.dimension)
        retain.add(vectors, np.arange(len(innocents), dtype=np.int64))
        store.forget_index.write(files["forget"])
        retain.write(files["retain"])
        _write_rows(store, files["entries"])
        if store.veil is not None:
            _write_key(folder / KEY_FILE, store.veil.key)
        for path in files.values():
            _to_disk(path)
        manifest = {
            "kind": "guard-store",
            "schema_version": SCHEMA_VERSION,
            "generation": number,
            **summary(store),
            "index": asdict(store.forget_index.info),
            "files": {r: {"name": p.name, "sha256": _sha256(p)} for r, p in files.items()},
            **extra,
        }
        write_json(folder / "manifest.json", manifest)
        _to_disk(folder / "manifest.json")
        _to_disk(folder)
        store.origin = (folder.resolve(), number)
        _clear(folder, keep={before, number})
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
    entries = folder / manifest["files"]["entries"]["name"]
    with closing(_connect(entries)) as db:
        state = db.execute("PRAGMA integrity_check").fetchone()[0]
    if state != "ok":
        raise ArtifactError(f"The database {entries} is damaged ({state}); rebuild the store.")
    vectors, keys = store.forget_index.all_vectors()
    expected = {key for i in store.entries for key in (2 * i, 2 * i + 1)}
    if set(keys.tolist()) != expected:
        raise ArtifactError(
            f"The index of the guard store {folder} does not hold the vectors of its entries; rebuild it."
        )
    if len(vectors) and float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max()) > 1e-3:
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


def _generation(folder: Path) -> int:
    """Return the generation that stands in a folder, 0 if it is empty.

    Raises:
        ArtifactError: If something else stands there.
    """
    path = folder / "manifest.json"
    if path.is_file():
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("kind") != "guard-store":
            raise ArtifactError(f"{folder} holds something that is no guard store; choose another folder.")
        return int(manifest.get("generation", 0))
    others = [
        p.name
        for p in folder.iterdir()
        if not (_FILE.fullmatch(p.name) or p.name.startswith(".") or p.name == KEY_FILE)
    ]
    if others:
        raise ArtifactError(
            f"{folder} is not empty ({sorted(others)[0]}) and holds no guard store; choose another folder."
        )
    return 0


def _read(folder: Path, manifest: dict[str, Any], is_common: Callable[[str], bool]) -> Store:
    paths: dict[str, Path] = {}
    for role in ROLES:
        stated = manifest.get("files", {}).get(role, {})
        paths[role] = path = folder / str(stated.get("name"))
        if not path.is_file():
            raise ArtifactError(
                f"The guard store {folder} lacks {path.name}; it is half-written: rebuild it."
            )
        if _sha256(path) != stated.get("sha256"):
            raise ArtifactError(f"{path} does not match its checksum in manifest.json; rebuild the store.")
    store = Store(manifest["encoder"], int(manifest["dimension"]))
    info = IndexInfo(**manifest["index"])
    store.forget_index = VectorIndex.read(paths["forget"], store.dimension, info)
    innocent = VectorIndex.read(paths["retain"], store.dimension, IndexInfo())
    rows = _read_rows(store, paths["entries"])
    retain, texts = rows[: manifest["num_retain"]], rows[manifest["num_retain"] :]
    store.next_id = int(manifest["next_id"])
    counts = (len(store.entries), len(store.forget_index), len(retain), len(innocent), len(texts))
    entries, num_retain = manifest["num_entries"], manifest["num_retain"]
    if counts != (entries, 2 * entries, num_retain, num_retain, manifest["num_innocent_texts"]):
        raise ArtifactError(
            f"The guard store {folder} holds {counts[0]} entries and {counts[2]} neighbours with {counts[1]} and "
            f"{counts[3]} vectors, its manifest says {entries} and {num_retain}; rebuild it."
        )
    vectors = innocent.vectors(np.arange(num_retain, dtype=np.int64))
    store.set_retain(retain, vectors, texts)
    if manifest["is_private"]:
        store.veil = Veil(_read_key(folder / KEY_FILE), is_common)
    store.origin = (folder.resolve(), int(manifest["generation"]))
    return store


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _write_rows(store: Store, path: Path) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = OFF")  # the file counts only once the manifest names it
        db.execute(
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, request TEXT NOT NULL, kind TEXT NOT NULL, "
            "question TEXT NOT NULL, answer TEXT NOT NULL, subject TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE phrases (entry INTEGER NOT NULL, position INTEGER NOT NULL, phrase TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE innocents (id INTEGER PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL, "
            "subject TEXT NOT NULL)"
        )
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            ((e.id, e.request, e.kind, e.question, e.answer, e.group) for e in store.entries.values()),
        )
        db.executemany(
            "INSERT INTO phrases VALUES (?, ?, ?)",
            ((e.id, i, p) for e in store.entries.values() for i, p in enumerate(e.phrases)),
        )
        embedded, _, texts = store.all_innocents()
        db.executemany(
            "INSERT INTO innocents VALUES (?, ?, ?, ?)",
            ((i, r.question, r.answer, r.group) for i, r in enumerate((*embedded, *texts))),
        )


def _read_rows(store: Store, path: Path) -> list[Innocent]:
    try:
        with closing(_connect(path)) as db:
            phrases: dict[int, list[str]] = {}
            for entry_id, phrase in db.execute("SELECT entry, phrase FROM phrases ORDER BY entry, position"):
                phrases.setdefault(entry_id, []).append(phrase)
            rows = db.execute("SELECT id, request, kind, question, answer, subject FROM entries ORDER BY id")
            store.register(
                Entry(
                    id=i,
                    request=request,
                    kind=kind,
                    question=question,
                    answer=answer,
                    group=group,
                    phrases=tuple(phrases.get(i, ())),
                )
                for i, request, kind, question, answer, group in rows
            )
            innocents = db.execute("SELECT question, answer, subject FROM innocents ORDER BY id")
            found = [Innocent(question=q, answer=a, group=g) for q, a, g in innocents]
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"The database {path} cannot be read ({error}); rebuild the store.") from None
    return found


def _write_key(path: Path, key: bytes) -> None:
    if path.is_file() and path.read_bytes() == key:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    _to_disk(path)


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise ArtifactError(
            f"The guard store {path.parent} is private and its key {path.name} is missing; put it back "
            "beside the manifest."
        ) from None


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(folder: Path, keep: set[int]) -> None:
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name)
        if match and int(match[1]) not in keep:
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
