"""Vector indexes: exact by default at every size; IVF (`guard.ivf`) only with its measured recall.

Vectors are unit length, so the inner product is the cosine. Both kinds add and remove at a cost that depends on what
is added or removed, not on what is stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import ArtifactError, ConfigError

__all__ = ["HIT", "ExactIndex", "IndexInfo", "VectorIndex", "read_faiss", "write_faiss"]

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

HIT = 0.5
"""Similarity from which a nearest neighbour counts as a hit that must be found."""
BLOCK = 32_768
"""Vectors that lie together in memory; more room is taken block by block, and nothing is ever moved to grow."""


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """What kind of index it is and, if approximate, what was measured when it was chosen."""

    kind: str = "exact"
    """``exact`` or ``ivf``."""
    num_lists: int = 0
    num_probed: int = 0
    recall: float | None = None
    """Share of queries with a hit of at least ``hit`` whose nearest neighbour is the exact one."""
    hit: float = HIT
    num_queries: int = 0
    num_vectors: int = 0
    """Size at which the recall was measured."""


class VectorIndex(ABC):
    """Unit vectors with ids of one's own.

    Args:
        dimension: Length of a vector.
    """

    info: IndexInfo

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of vectors."""

    def add(self, vectors: Vectors, ids: Ids) -> None:
        """Add vectors of shape ``(n, D)``; their ids, at least 0, must be new.

        Raises:
            ConfigError: If the shape does not fit.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ConfigError(
                f"Vectors of shape {vectors.shape} do not fit a store of dimension {self.dimension}."
            )
        if len(ids):
            self._add(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    @abstractmethod
    def _add(self, vectors: Vectors, ids: Ids) -> None: ...

    @abstractmethod
    def remove(self, ids: Ids) -> int:
        """Remove ids and return how many of them there were."""

    @abstractmethod
    def search(self, vectors: Vectors, num: int) -> tuple[Vectors, Ids]:
        """Return similarities and ids of the ``num`` nearest, shape ``(n, num)``; id -1 where there are fewer."""

    @abstractmethod
    def vectors(self, ids: Ids) -> Vectors:
        """Return the stored vectors of ids that are there, shape ``(n, D)``."""

    @abstractmethod
    def ids(self) -> Ids:
        """Return all ids, in no order."""

    def batches(self) -> Iterator[tuple[Vectors, Ids]]:
        """Yield all vectors, shape ``(n, D)``, with their ids, `BLOCK` at a time."""
        ids = self.ids()
        for start in range(0, len(ids), BLOCK):
            yield self.vectors(ids[start : start + BLOCK]), ids[start : start + BLOCK]


class ExactIndex(VectorIndex):
    """Every stored vector is compared, by FAISS; 4 bytes a number, and 12 a vector for its id.

    Args:
        dimension: Length of a vector.
    """

    info = IndexInfo()

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._blocks: list[Vectors] = []
        self._ids = np.empty(0, dtype=np.int64)
        self._rows = np.empty(0, dtype=np.int32)
        """Where the vector of an id stands; -1: nowhere."""
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def _add(self, vectors: Vectors, ids: Ids) -> None:
        start, self._num = self._num, self._num + len(ids)
        while len(self._blocks) * BLOCK < self._num:
            self._blocks.append(np.empty((BLOCK, self.dimension), dtype=np.float32))
        done = 0
        while done < len(ids):
            block, row = divmod(start + done, BLOCK)
            count = min(BLOCK - row, len(ids) - done)
            self._blocks[block][row : row + count] = vectors[done : done + count]
            done += count
        self._ids = _with_room(self._ids, self._num, -1)
        self._ids[start : self._num] = ids
        self._rows = _with_room(self._rows, int(ids.max()) + 1, -1)
        self._rows[ids] = np.arange(start, self._num, dtype=np.int32)

    def remove(self, ids: Ids) -> int:
        """Remove ids and return how many of them there were; the last vectors take the places of the removed."""
        rows = self._rows_of(np.unique(ids))
        rows = np.sort(rows[rows >= 0])[::-1]
        self._rows[self._ids[rows]] = -1
        for row in rows.tolist():
            self._num -= 1
            if row != self._num:
                (to, i), (source, j) = divmod(row, BLOCK), divmod(self._num, BLOCK)
                self._blocks[to][i] = self._blocks[source][j]
                self._ids[row] = moved = self._ids[self._num]
                self._rows[moved] = row
        del self._blocks[-(-self._num // BLOCK) :]
        return len(rows)

    def search(self, vectors: Vectors, num: int) -> tuple[Vectors, Ids]:
        """Return similarities and ids of the ``num`` nearest, shape ``(n, num)``; id -1 where there are fewer."""
        import faiss

        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        found, rows = (
            [np.full((len(queries), num), -np.inf, dtype=np.float32)],
            [np.full((len(queries), num), -1)],
        )
        for start, block in zip(range(0, self._num, BLOCK), self._blocks, strict=True):
            count = min(BLOCK, self._num - start)
            s, i = faiss.knn(queries, block[:count], min(num, count), metric=faiss.METRIC_INNER_PRODUCT)
            found.append(s)
            rows.append(i + start)
        similarities, places = np.concatenate(found, axis=1), np.concatenate(rows, axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :num]
        places = np.take_along_axis(places, best, axis=1)
        keys = np.full(places.shape, -1, dtype=np.int64)
        keys[places >= 0] = self._ids[places[places >= 0]]
        return np.take_along_axis(similarities, best, axis=1), keys

    def vectors(self, ids: Ids) -> Vectors:
        """Return the stored vectors of ids that are there, shape ``(n, D)``."""
        rows = self._rows_of(ids)
        out = np.empty((len(ids), self.dimension), dtype=np.float32)
        for number in np.unique(rows // BLOCK).tolist():
            here = rows // BLOCK == number
            out[here] = self._blocks[number][rows[here] % BLOCK]
        return out

    def ids(self) -> Ids:
        """Return all ids, in no order."""
        return self._ids[: self._num].copy()

    def _rows_of(self, ids: Ids) -> npt.NDArray[np.int32]:
        rows = np.full(len(ids), -1, dtype=np.int32)
        known = (ids >= 0) & (ids < len(self._rows))
        rows[known] = self._rows[ids[known]]
        return rows


def _with_room(array: npt.NDArray[Any], size: int, fill: int) -> npt.NDArray[Any]:
    """Return the array, or a longer copy with room for ``size`` items and some more."""
    if size <= len(array):
        return array
    longer = np.full(size + size // 8, fill, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def write_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index; a full disk is an `OSError`, never a file that silently ends early."""
    import faiss

    callback: Any = vars(faiss)["PyCallbackIOWriter"]  # not in FAISS' type stubs
    with path.open("wb") as file:
        faiss.write_index(index, callback(file.write))


def read_faiss(path: Path, dimension: int) -> Any:
    """Read a FAISS index.

    Raises:
        ArtifactError: If the file is no index, or one of another dimension.
    """
    import faiss

    try:
        found = faiss.read_index(str(path))
    except RuntimeError:
        raise ArtifactError(f"{path} is not a readable FAISS index; rebuild the store.") from None
    if found.d != dimension:
        raise ArtifactError(
            f"{path} has dimension {found.d}, its manifest says {dimension}; rebuild the store."
        )
    return found
