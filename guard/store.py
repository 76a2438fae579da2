"""The forget requests: entries with ids, their embeddings in FAISS, everything else in SQLite.

A saved store is a folder: ``manifest.json`` (encoder, dimension, counts, checksums), ``forget.faiss`` and
``retain.faiss`` (exact inner-product indexes), ``entries.sqlite`` (texts and phrases). The forgotten questions
and answers stay readable in it: keep the folder as private as the data itself.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.artifacts import atomic_dir, read_json, write_json
from eval.errors import ArtifactError, ConfigError

__all__ = ["Entry", "Innocent", "Store"]

SCHEMA_VERSION = 1
_FILES = ("forget.faiss", "retain.faiss", "entries.sqlite")
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One forgotten question and answer."""

    id: int
    """Never reused, also not after removal."""
    request: str
    """The forget request it came with."""
    question: str
    answer: str = field(repr=False)
    group: str
    """The person or topic it is about."""
    phrases: tuple[str, ...] = field(default=(), repr=False)
    """What must not be said, in folded form."""


@dataclass(frozen=True, kw_only=True)
class Innocent:
    """One innocent question and answer: a neighbour the gate is calibrated with."""

    question: str
    answer: str
    group: str


class Store:
    """Entries and innocent neighbours, searchable by meaning.

    Args:
        encoder: Identity of the sentence encoder whose vectors are stored.
        dimension: Length of its vectors.
    """

    def __init__(self, encoder: str, dimension: int) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self.next_id = 1
        self.entries: dict[int, Entry] = {}
        self.retain: tuple[Innocent, ...] = ()
        """Innocent neighbours that are not forgotten now: what positions of the retain index refer to."""
        self._innocents: tuple[Innocent, ...] = ()
        self._innocent_vectors: Vectors = np.zeros((0, dimension), dtype=np.float32)
        self._lock = threading.RLock()
        self._forget_index = _new_index(dimension)
        self._retain_index = _new_index(dimension)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def requests(self) -> dict[str, int]:
        """Number of entries of each request, in order of arrival."""
        counts: dict[str, int] = {}
        for entry in self.entries.values():
            counts[entry.request] = counts.get(entry.request, 0) + 1
        return counts

    def add(self, entries: Sequence[Entry], questions: Vectors, answers: Vectors) -> None:
        """Add entries whose ids begin at ``next_id``, with unit vectors of shape ``(n, D)`` each.

        Raises:
            ConfigError: If an id was used before.
        """
        with self._lock:
            for i, entry in enumerate(entries):
                if entry.id != self.next_id + i:
                    raise ConfigError(f"Entry id {entry.id} is not the next free one ({self.next_id + i}).")
            ids = np.array([entry.id for entry in entries], dtype=np.int64)
            if len(ids):
                self._forget_index.add_with_ids(_unit(questions, self.dimension), 2 * ids)
                self._forget_index.add_with_ids(_unit(answers, self.dimension), 2 * ids + 1)
            self.entries = self.entries | {entry.id: entry for entry in entries}
            self.next_id += len(entries)
            self._show_innocents()

    def remove(self, request: str) -> int:
        """Remove a request's entries and return how many there were.

        Raises:
            ConfigError: If there is no such request.
        """
        with self._lock:
            ids = [entry.id for entry in self.entries.values() if entry.request == request]
            if not ids:
                known = ", ".join(self.requests) or "none"
                raise ConfigError(f"The store has no request {request!r} to remove; it has: {known}.")
            vectors = np.array([v for i in ids for v in (2 * i, 2 * i + 1)], dtype=np.int64)
            self._forget_index.remove_ids(vectors)
            self.entries = {i: entry for i, entry in self.entries.items() if entry.request != request}
            self._show_innocents()
            return len(ids)

    def replace_entries(self, entries: Iterable[Entry]) -> None:
        """Replace entries by ones of the same ids (their phrases were found anew)."""
        with self._lock:
            self.entries = self.entries | {entry.id: entry for entry in entries}

    def set_retain(self, retain: Sequence[Innocent], vectors: Vectors) -> None:
        """Replace the innocent neighbours; ``vectors`` of their questions, shape ``(n, D)``."""
        with self._lock:
            self._innocents, self._innocent_vectors = tuple(retain), _unit(vectors, self.dimension)
            self._show_innocents()

    def _show_innocents(self) -> None:
        """Leave out those that are about a forgotten group, as long as it is forgotten."""
        groups = {entry.group for entry in self.entries.values()}
        questions = {entry.question for entry in self.entries.values()}
        shown = [
            i
            for i, row in enumerate(self._innocents)
            if row.group not in groups and row.question not in questions
        ]
        index = _new_index(self.dimension)
        if shown:
            index.add_with_ids(self._innocent_vectors[shown], np.arange(len(shown), dtype=np.int64))
        self.retain, self._retain_index = tuple(self._innocents[i] for i in shown), index

    def vectors(self, *, kind: str) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Return the vectors of ``questions``, ``answers`` or ``retain``, shape ``(n, D)``, and what they belong to."""
        if kind == "retain":
            ids = np.arange(len(self.retain), dtype=np.int64)
            keys, index = ids, self._retain_index
        else:
            ids = np.array(list(self.entries), dtype=np.int64)
            keys, index = 2 * ids + (kind == "answers"), self._forget_index
        if not len(ids):
            return np.zeros((0, self.dimension), dtype=np.float32), ids
        return np.stack([index.reconstruct(int(key)) for key in keys]), ids

    def search(
        self, vectors: Vectors, *, num: int, retain: bool = False
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Return the ``num`` nearest stored vectors of each query: similarities and keys, shape ``(n, num)``.

        Keys are ``2 * entry id`` for a question and ``2 * entry id + 1`` for an answer, or positions in
        ``retain``; -1 where the store holds fewer.
        """
        index = self._retain_index if retain else self._forget_index
        similarities, keys = index.search(np.ascontiguousarray(vectors, dtype=np.float32), num)
        return similarities, keys

    def save(self, directory: Path, extra: dict[str, Any]) -> None:
        """Write the folder atomically; ``extra`` (the gate's state) goes into the manifest."""
        import faiss

        with self._lock, atomic_dir(Path(directory)) as folder:
            faiss.write_index(self._forget_index, str(folder / "forget.faiss"))
            innocents = _new_index(self.dimension)
            if self._innocents:
                ids = np.arange(len(self._innocents), dtype=np.int64)
                innocents.add_with_ids(self._innocent_vectors, ids)
            faiss.write_index(innocents, str(folder / "retain.faiss"))
            self._write_sqlite(folder / "entries.sqlite")
            manifest = {
                "schema_version": SCHEMA_VERSION,
                "kind": "guard-store",
                "encoder": self.encoder,
                "dimension": self.dimension,
                "metric": "inner product of unit vectors",
                "num_entries": len(self.entries),
                "num_retain": len(self._innocents),
                "next_id": self.next_id,
                "sha256": {name: _sha256(folder / name) for name in _FILES},
                **extra,
            }
            write_json(folder / "manifest.json", manifest)

    def _write_sqlite(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, request, question, answer, subject)")
            db.execute(
                "CREATE TABLE phrases (entry INTEGER REFERENCES entries(id), position INTEGER, phrase)"
            )
            db.execute("CREATE TABLE retain (id INTEGER PRIMARY KEY, question, answer, subject)")
            entries = self.entries.values()
            db.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
                [(e.id, e.request, e.question, e.answer, e.group) for e in entries],
            )
            db.executemany(
                "INSERT INTO phrases VALUES (?, ?, ?)",
                [(e.id, i, phrase) for e in entries for i, phrase in enumerate(e.phrases)],
            )
            db.executemany(
                "INSERT INTO retain VALUES (?, ?, ?, ?)",
                [(i, r.question, r.answer, r.group) for i, r in enumerate(self._innocents)],
            )

    @classmethod
    def load(cls, directory: Path) -> tuple[Store, dict[str, Any]]:
        """Read a folder written by `save`; return the store and its manifest.

        Raises:
            ArtifactError: If the folder is missing, half-written, changed since, or not a store.
        """
        import faiss

        folder = Path(directory)
        manifest = _checked_manifest(folder)
        store = cls(manifest["encoder"], int(manifest["dimension"]))
        store._forget_index = faiss.read_index(str(folder / "forget.faiss"))
        innocents = faiss.read_index(str(folder / "retain.faiss"))
        with closing(sqlite3.connect(f"file:{folder / 'entries.sqlite'}?mode=ro", uri=True)) as db:
            phrases: dict[int, list[str]] = {}
            for entry_id, phrase in db.execute("SELECT entry, phrase FROM phrases ORDER BY entry, position"):
                phrases.setdefault(entry_id, []).append(phrase)
            for row in db.execute("SELECT id, request, question, answer, subject FROM entries ORDER BY id"):
                found = tuple(phrases.get(row[0], ()))
                store.entries[row[0]] = Entry(
                    id=row[0], request=row[1], question=row[2], answer=row[3], group=row[4], phrases=found
                )
            rows = db.execute("SELECT question, answer, subject FROM retain ORDER BY id").fetchall()
            retain = tuple(Innocent(question=q, answer=a, group=g) for q, a, g in rows)
        store.next_id = int(manifest["next_id"])
        counts = (len(store.entries), len(retain), store._forget_index.ntotal, innocents.ntotal)
        stated = (manifest["num_entries"], manifest["num_retain"])
        if counts != (*stated, 2 * stated[0], stated[1]):
            raise ArtifactError(
                f"The guard store {folder} holds {counts} rows, its manifest says {stated}; rebuild it."
            )
        vectors = [innocents.reconstruct(i) for i in range(innocents.ntotal)]
        store.set_retain(retain, np.stack(vectors) if vectors else store._innocent_vectors)
        return store, manifest


def _checked_manifest(folder: Path) -> dict[str, Any]:
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
    for name in _FILES:
        if not (folder / name).is_file():
            raise ArtifactError(f"The guard store {folder} lacks {name}; it is half-written: rebuild it.")
        if _sha256(folder / name) != manifest.get("sha256", {}).get(name):
            raise ArtifactError(
                f"{folder / name} does not match its checksum in manifest.json; rebuild the store."
            )
    return manifest


def _new_index(dimension: int) -> Any:
    import faiss

    return faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))


def _unit(vectors: Vectors, dimension: int) -> Vectors:
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ConfigError(f"Vectors of shape {vectors.shape} do not fit a store of dimension {dimension}.")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
