"""The files of a store: segments of entries and the innocent neighbours, each as vectors and as rows.

Files are written once and never changed; which of them count is the manifest's to say (`guard.persistence`).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sys import intern
from typing import Any, TypeAlias

import numpy as np

from eval.errors import ArtifactError
from guard.indexes import Ids, VectorIndex, Vectors, read_faiss, write_faiss
from guard.ivf import IvfIndex
from guard.store import Entry, Innocent, Store

__all__ = [
    "SEGMENT",
    "Files",
    "check_database",
    "checked",
    "read_entries",
    "read_innocents",
    "read_key",
    "read_vectors",
    "to_disk",
    "write_innocents",
    "write_ivf",
    "write_key",
    "write_segment",
]

Files: TypeAlias = dict[str, dict[str, str]]
"""What the manifest says about files: name and SHA-256 of each role."""
SEGMENT = 16_384
"""Entries in a segment at most."""


def write_segment(store: Store, ids: Sequence[int], covered: int, folder: Path, name: str) -> Files:
    """Write entries, and the vectors of those from the id ``covered`` on."""
    files = {"entries": folder / f"entries-{name}.sqlite"}
    own = np.array([i for i in ids if i >= covered], dtype=np.int64)
    if len(own):
        files["vectors"] = folder / f"forget-{name}.faiss"
        keys = np.stack([2 * own, 2 * own + 1], axis=1).ravel()
        _write_vectors(store.forget_index.vectors(keys), keys, files["vectors"])
    _write_entries([store.entries[i] for i in ids], files["entries"])
    return _checksums(files)


def write_ivf(index: IvfIndex, folder: Path, name: str) -> Files:
    """Write an IVF index whole."""
    path = folder / f"ivf-{name}.faiss"
    write_faiss(index.faiss_index, path)
    return _checksums({"index": path})


def write_innocents(store: Store, folder: Path, name: str) -> Files:
    """Write the innocent neighbours: vectors and rows."""
    embedded, vectors, texts = store.all_innocents()
    files = {
        "vectors": folder / f"retain-{name}.faiss",
        "rows": folder / f"retain-{name}.sqlite",
    }
    _write_vectors(vectors, np.arange(len(vectors), dtype=np.int64), files["vectors"])
    with _new_database(files["rows"]) as db:
        db.execute(
            "CREATE TABLE innocents (id INTEGER PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL, "
            "subject TEXT NOT NULL)"
        )
        db.executemany(
            "INSERT INTO innocents VALUES (?, ?, ?, ?)",
            ((i, r.question, r.answer, r.group) for i, r in enumerate((*embedded, *texts))),
        )
    return _checksums(files)


def _write_vectors(vectors: Vectors, ids: Ids, path: Path) -> None:
    import faiss

    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors, ids)
    write_faiss(index, path)


def _checksums(files: dict[str, Path]) -> Files:
    """Return name and SHA-256 of files that are on the disk from now on."""
    for path in files.values():
        to_disk(path)
    return {role: {"name": path.name, "sha256": _sha256(path)} for role, path in files.items()}


def checked(folder: Path, files: Files) -> dict[str, Path]:
    """Return the paths of files as a manifest states them.

    Raises:
        ArtifactError: If one is missing or does not have its checksum.
    """
    paths = {role: folder / str(stated["name"]) for role, stated in files.items()}
    for role, path in paths.items():
        try:
            found = _sha256(path)
        except OSError:
            raise ArtifactError(
                f"The guard store {folder} lacks {path.name}; it is half-written: rebuild it."
            ) from None
        if found != files[role]["sha256"]:
            raise ArtifactError(f"{path} does not match its checksum in manifest.json; rebuild the store.")
    return paths


def read_vectors(index: VectorIndex, path: Path, *, first: int = 0) -> None:
    """Add the vectors of a file, from the key ``first`` on, to an index.

    Raises:
        ArtifactError: If the file is no FAISS index, or one of another dimension.
    """
    import faiss

    found: Any = read_faiss(path, index.dimension)
    flat: Any = faiss.downcast_index(found.index)
    vectors = faiss.rev_swig_ptr(flat.get_xb(), found.ntotal * index.dimension).reshape(-1, index.dimension)
    keys = np.array(faiss.vector_to_array(found.id_map), dtype=np.int64)
    is_wanted = keys >= first
    index.add(vectors if is_wanted.all() else vectors[is_wanted], keys[is_wanted])


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def check_database(path: Path) -> None:
    """Look through a database's pages.

    Raises:
        ArtifactError: If one is damaged.
    """
    state = _rows(path, "PRAGMA integrity_check")[0][0]
    if state != "ok":
        raise ArtifactError(f"The database {path} is damaged ({state}); rebuild the store.")


@contextmanager
def _new_database(path: Path) -> Iterator[sqlite3.Connection]:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = OFF")  # the file counts only once the manifest names it
        yield db


def _write_entries(entries: Sequence[Entry], path: Path) -> None:
    with _new_database(path) as db:
        db.execute(
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, request TEXT NOT NULL, kind TEXT NOT NULL, "
            "question TEXT NOT NULL, answer TEXT NOT NULL, subject TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE phrases (entry INTEGER NOT NULL, position INTEGER NOT NULL, phrase TEXT NOT NULL)"
        )
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            ((e.id, e.request, e.kind, e.question, e.answer, e.group) for e in entries),
        )
        db.executemany(
            "INSERT INTO phrases VALUES (?, ?, ?)",
            ((e.id, i, p) for e in entries for i, p in enumerate(e.phrases)),
        )


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of a segment, by id.

    Raises:
        ArtifactError: If the file is not such a database.
    """
    phrases: dict[int, list[str]] = {}
    for entry_id, phrase in _rows(path, "SELECT entry, phrase FROM phrases ORDER BY entry, position"):
        phrases.setdefault(entry_id, []).append(phrase)
    return [
        Entry(
            id=i,
            request=intern(request),
            kind=kind,
            question=question,
            answer=answer,
            group=intern(group),
            phrases=tuple(phrases.get(i, ())),
        )
        for i, request, kind, question, answer, group in _rows(
            path, "SELECT id, request, kind, question, answer, subject FROM entries ORDER BY id"
        )
    ]


def read_innocents(path: Path) -> list[Innocent]:
    """Return the innocent neighbours, those with vectors first.

    Raises:
        ArtifactError: If the file is not such a database.
    """
    rows = _rows(path, "SELECT question, answer, subject FROM innocents ORDER BY id")
    return [Innocent(question=q, answer=a, group=g) for q, a, g in rows]


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        with closing(_connect(path)) as db:
            return db.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"The database {path} cannot be read ({error}); rebuild the store.") from None


def write_key(path: Path, key: bytes) -> None:
    """Write a private store's key, readable by its owner alone."""
    if path.is_file() and path.read_bytes() == key:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    to_disk(path)


def read_key(path: Path) -> bytes:
    """Return a private store's key.

    Raises:
        ArtifactError: If it is missing.
    """
    try:
        return path.read_bytes()
    except OSError:
        raise ArtifactError(
            f"The guard store {path.parent} is private and its key {path.name} is missing; put it back "
            "beside the manifest."
        ) from None


def to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
