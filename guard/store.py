"""The forget requests: entries with ids, their embeddings in FAISS, everything else in SQLite.

A saved store is a folder (`guard.persistence`). Unless it was made private, the forgotten questions and answers stay
readable in it: keep the folder as private as the data itself.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eval.errors import ConfigError
from eval.types import Progress
from guard.hashing import Veil
from guard.indexes import ExactIndex, VectorIndex

__all__ = ["Entry", "Innocent", "Kind", "Saved", "Store"]

Vectors = npt.NDArray[np.float32]
Kind = Literal["qa", "subject", "document"]
"""A question with its answer, a person or thing by its names alone, or a piece of a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that is forgotten."""

    id: int
    """Never reused, also not after removal."""
    request: str
    """The forget request it came with."""
    question: str
    """Of a subject: one of its names. Of a document: the beginning of the piece."""
    answer: str = field(repr=False)
    """Of a document: the piece. Empty for a subject."""
    group: str
    """The person or topic it is about."""
    kind: Kind = "qa"
    phrases: tuple[str, ...] = field(default=(), repr=False)
    """What must not be said, in folded form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Innocent:
    """One innocent question and answer: a neighbour the gate is calibrated with."""

    question: str
    answer: str
    group: str


@dataclass(kw_only=True)
class Saved:
    """What of a store stands in a folder already, so that the next save writes only the rest."""

    folder: Path
    generation: int
    next_id: int
    """Entries from here on are not there."""
    removed: list[int] = field(default_factory=list)
    """Ids of entries that are there and must not be read any more."""
    has_innocents: bool = True
    """Whether the innocent neighbours there are the store's."""


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
        self.veil: Veil | None = None
        """Set in a private store: texts are hashed word by word."""
        self.retain: tuple[Innocent, ...] = ()
        """Innocent neighbours that are not forgotten now: what positions of the retain index refer to."""
        self.innocent_texts: tuple[Innocent, ...] = ()
        """Further innocent rows that are not forgotten now, without vectors."""
        self.forget_index: VectorIndex = ExactIndex(dimension)
        self.saved: Saved | None = None
        """Where it was last read from or written to."""
        self._innocents: tuple[Innocent, ...] = ()
        self._innocent_vectors: Vectors = np.zeros((0, dimension), dtype=np.float32)
        self._innocent_texts: tuple[Innocent, ...] = ()
        self._retain_index: VectorIndex = ExactIndex(dimension)
        self._groups: dict[str, dict[int, None]] = {}
        self._questions: Counter[str] = Counter()
        self._requests: dict[str, list[int]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def requests(self) -> dict[str, int]:
        """Number of entries of each request, in order of arrival."""
        return {request: len(ids) for request, ids in self._requests.items()}

    def of_group(self, group: str) -> tuple[int, ...]:
        """Return the ids of the entries about a person or topic."""
        return tuple(self._groups.get(group, ()))

    def of_request(self, request: str) -> tuple[int, ...]:
        """Return the ids of a request's entries."""
        return tuple(self._requests.get(request, ()))

    def add(self, entries: Sequence[Entry], questions: Vectors, answers: Vectors) -> None:
        """Add entries whose ids begin at ``next_id``, with unit vectors of shape ``(n, D)`` each.

        Raises:
            ConfigError: If an id was used before, or the vectors do not fit.
        """
        with self._lock:
            for i, entry in enumerate(entries):
                if entry.id != self.next_id + i:
                    raise ConfigError(f"Entry id {entry.id} is not the next free one ({self.next_id + i}).")
            ids = np.array([entry.id for entry in entries], dtype=np.int64)
            if len(ids):
                both = np.concatenate([np.atleast_2d(questions), np.atleast_2d(answers)])
                self.forget_index.add(both, np.concatenate([2 * ids, 2 * ids + 1]))
            self.next_id += len(entries)
            self.register(entries)
            self._show_innocents(entries)

    def register(self, entries: Iterable[Entry]) -> None:
        """Take entries in without their vectors, for whoever reads a store."""
        for entry in entries:
            self.entries[entry.id] = entry
            self._groups.setdefault(entry.group, {})[entry.id] = None
            self._questions[entry.question] += 1
            self._requests.setdefault(entry.request, []).append(entry.id)

    def remove(self, request: str) -> int:
        """Remove a request's entries and return how many there were.

        Raises:
            ConfigError: If there is no such request.
        """
        with self._lock:
            if request not in self._requests:
                known = ", ".join(self._requests) or "none"
                raise ConfigError(f"The store has no request {request!r} to remove; it has: {known}.")
            removed = [self.entries.pop(i) for i in self._requests.pop(request)]
            ids = np.array([entry.id for entry in removed], dtype=np.int64)
            self.forget_index.remove(np.concatenate([2 * ids, 2 * ids + 1]))
            for entry in removed:
                del self._groups[entry.group][entry.id]
                if not self._groups[entry.group]:
                    del self._groups[entry.group]
                self._questions[entry.question] -= 1
                if not self._questions[entry.question]:
                    del self._questions[entry.question]
            if self.saved is not None:
                self.saved.removed += [i for i in ids.tolist() if i < self.saved.next_id]
            self._show_innocents(removed)
            return len(removed)

    def set_retain(
        self, retain: Sequence[Innocent], vectors: Vectors, texts: Sequence[Innocent] = ()
    ) -> None:
        """Replace the innocent neighbours; ``vectors`` of their questions, shape ``(n, D)``; ``texts`` have none."""
        with self._lock:
            self._innocents, self._innocent_texts = tuple(retain), tuple(texts)
            self._innocent_vectors = np.ascontiguousarray(vectors, dtype=np.float32)
            if self.saved is not None:
                self.saved.has_innocents = False
            self._show_innocents(None)

    def all_innocents(self) -> tuple[tuple[Innocent, ...], Vectors, tuple[Innocent, ...]]:
        """Return what `set_retain` was given, hidden rows included."""
        return self._innocents, self._innocent_vectors, self._innocent_texts

    def _show_innocents(self, changed: Sequence[Entry] | None) -> None:
        """Leave out those that are about a forgotten group, as long as it is forgotten.

        Args:
            changed: Entries that came or went; ``None``: the innocent rows themselves changed.
        """
        if changed is not None:
            groups, questions = {e.group for e in changed}, {e.question for e in changed}
            rows = (*self._innocents, *self._innocent_texts)
            if not any(row.group in groups or row.question in questions for row in rows):
                return

        def is_shown(row: Innocent) -> bool:
            return row.group not in self._groups and row.question not in self._questions

        shown = [i for i, row in enumerate(self._innocents) if is_shown(row)]
        index = ExactIndex(self.dimension)
        index.add(self._innocent_vectors[shown], np.arange(len(shown), dtype=np.int64))
        self.innocent_texts = tuple(filter(is_shown, self._innocent_texts))
        self.retain, self._retain_index = tuple(self._innocents[i] for i in shown), index

    def search(
        self, vectors: Vectors, *, num: int, retain: bool = False
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Return the ``num`` nearest stored vectors of each query: similarities and keys, shape ``(n, num)``.

        Keys are ``2 * entry id`` for a question and ``2 * entry id + 1`` for an answer, or positions in
        ``retain``; -1 where the store holds fewer.
        """
        return (self._retain_index if retain else self.forget_index).search(vectors, num)

    def use_ivf(self, *, min_recall: float = 0.999, progress: Progress | None = None) -> None:
        """Search approximately from now on, with the recall that `IvfIndex.of` measures.

        Raises:
            ConfigError: If the store is small enough for exact search, or the recall is not reached.
        """
        from guard.ivf import IvfIndex

        with self._lock:
            self.forget_index = IvfIndex.of(self.forget_index, min_recall=min_recall, progress=progress)
            self._save_whole()

    def _save_whole(self) -> None:
        """Let the next save write everything."""
        if self.saved is not None:
            self.saved = replace(self.saved, next_id=1, removed=[], has_innocents=False)

    def make_private(self, is_common: Callable[[str], bool], key: bytes | None = None) -> None:
        """Replace every stored text by keyed hashes of its words; there is no way back.

        Args:
            is_common: Tells frequent words of the language.
            key: Of the hashes; ``None``: a new one.
        """
        with self._lock:
            veil = Veil(key or secrets.token_bytes(32), is_common)
            entries = [veiled_entry(entry, veil) for entry in self.entries.values()]
            self.entries, self._groups = {}, {}
            self._questions, self._requests = Counter(), {}
            self._save_whole()
            self.register(entries)
            innocents, vectors, texts = self.all_innocents()
            hidden = [[_veiled_innocent(row, veil) for row in rows] for rows in (innocents, texts)]
            self.set_retain(hidden[0], vectors, hidden[1])
            self.veil = veil


def veiled_entry(entry: Entry, veil: Veil) -> Entry:
    """Return an entry without any readable text; a document's runs of words become its phrases."""
    phrases = veil.phrases(entry.phrases)
    if entry.kind == "document":
        phrases = (*phrases, *veil.ngrams(entry.answer))
    return replace(
        entry,
        question=veil.text(entry.question),
        answer=veil.text(entry.answer),
        group=veil.text(entry.group),
        phrases=tuple(dict.fromkeys(phrases)),
    )


def _veiled_innocent(row: Innocent, veil: Veil) -> Innocent:
    return Innocent(
        question=veil.text(row.question), answer=veil.text(row.answer), group=veil.text(row.group)
    )


def summary(store: Store) -> dict[str, Any]:
    """Return what a manifest says about a store's content."""
    return {
        "encoder": store.encoder,
        "dimension": store.dimension,
        "is_private": store.veil is not None,
        "next_id": store.next_id,
        "num_entries": len(store.entries),
        "num_retain": len(store.all_innocents()[0]),
        "num_innocent_texts": len(store.all_innocents()[2]),
        "requests": store.requests,
    }
