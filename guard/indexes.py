"""Vector indexes: exact by default at every size; IVF only with its measured recall.

Vectors are unit length, so the inner product is the cosine. Both kinds can remove. An approximate miss is a leak,
therefore IVF is chosen by a measurement on the stored vectors themselves, and the measurement is kept beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import ArtifactError, ConfigError

__all__ = ["IndexInfo", "VectorIndex"]

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

MIN_VECTORS = 5_000
"""Below this an exact search costs less than the encoder, and IVF is refused."""
HIT = 0.5
"""Similarity from which a nearest neighbour counts as a hit that must be found."""
_NUM_QUERIES = 512
_HASHTABLE = 2
"""``faiss::DirectMap::Hashtable``: ids of any kind to where their vectors are, kept through removals."""
_TRAINING_VECTORS_PER_LIST = 48
_MOST_PROBED_SHARE = 0.5


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


class VectorIndex:
    """Unit vectors with ids of one's own.

    Args:
        dimension: Length of a vector.
    """

    def __init__(self, dimension: int) -> None:
        import faiss

        self.dimension = dimension
        self.info = IndexInfo()
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Vectors, ids: Ids) -> None:
        """Add vectors of shape ``(n, D)``; their ids must be new.

        Raises:
            ConfigError: If the shape does not fit.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ConfigError(
                f"Vectors of shape {vectors.shape} do not fit a store of dimension {self.dimension}."
            )
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def remove(self, ids: Ids) -> int:
        """Remove ids and return how many there were."""
        import faiss

        if self.info.kind == "exact":
            return int(self._index.remove_ids(ids))
        return int(self._index.remove_ids(faiss.IDSelectorArray(ids)))

    def search(self, vectors: Vectors, num: int) -> tuple[Vectors, Ids]:
        """Return similarities and ids of the ``num`` nearest, shape ``(n, num)``; id -1 where there are fewer."""
        similarities, ids = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), num)
        return similarities, ids

    def vectors(self, ids: Ids) -> Vectors:
        """Return the stored vectors of ids, shape ``(n, D)``."""
        out = np.zeros((len(ids), self.dimension), dtype=np.float32)
        for row, key in enumerate(ids.tolist()):
            self._index.reconstruct(key, out[row])
        return out

    def ids(self) -> Ids:
        """Return all ids, in no order."""
        import faiss

        if self.info.kind == "exact":
            return np.array(faiss.vector_to_array(self._index.id_map), dtype=np.int64)
        lists = self._index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy()
            for i in range(self._index.nlist)
            if lists.list_size(i)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)

    def all_vectors(self) -> tuple[Vectors, Ids]:
        """Return all vectors, shape ``(n, D)``, and their ids."""
        import faiss

        ids = self.ids()
        if self.info.kind == "exact":
            flat: Any = faiss.downcast_index(self._index.index)
            return faiss.rev_swig_ptr(flat.get_xb(), len(ids) * self.dimension).reshape(
                -1, self.dimension
            ).copy(), ids
        return self.vectors(ids), ids

    def as_ivf(self, *, min_recall: float = 0.999, seed: int = 0) -> VectorIndex:
        """Return an approximate index of the same vectors that probes just enough lists for the recall asked for.

        Queries are stored vectors moved at random to similarities between `HIT` and 1.

        Raises:
            ConfigError: If there are too few vectors, or the recall is not reached while half of them are searched.
        """
        import faiss

        vectors, ids = self.all_vectors()
        if len(ids) < MIN_VECTORS:
            raise ConfigError(
                f"An IVF index needs at least {MIN_VECTORS} vectors, the store has {len(ids)}; "
                "exact search is faster there: keep the exact index."
            )
        rng = np.random.default_rng(seed)
        num_lists = 2 ** round(np.log2(2 * np.sqrt(len(ids))))
        ivf = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dimension), self.dimension, num_lists, faiss.METRIC_INNER_PRODUCT
        )
        ivf.cp.seed, ivf.cp.spherical, ivf.cp.niter = seed + 1, True, 8
        ivf.cp.min_points_per_centroid = 1
        sample = rng.permutation(len(ids))[: _TRAINING_VECTORS_PER_LIST * num_lists]
        ivf.train(vectors[np.sort(sample)])
        ivf.add_with_ids(vectors, ids)
        ivf.set_direct_map_type(_HASHTABLE)
        queries = _moved(vectors[rng.permutation(len(ids))[:_NUM_QUERIES]], rng)
        exact, _ = self.search(queries, 1)
        hits = exact[:, 0] >= HIT
        out = VectorIndex(self.dimension)
        out._index = ivf
        probed, recall = 1, 0.0
        while True:
            ivf.nprobe = probed
            found, _ = ivf.search(queries, 1)
            recall = float((found[hits, 0] >= exact[hits, 0] - 1e-5).mean())
            if recall >= min_recall or probed >= _MOST_PROBED_SHARE * num_lists:
                break
            probed *= 2
        if recall < min_recall:
            raise ConfigError(
                f"IVF finds {recall:.4f} of the nearest neighbours where {min_recall} was asked for, "
                f"even with {probed} of {num_lists} lists searched; keep the exact index."
            )
        out.info = IndexInfo(
            kind="ivf",
            num_lists=num_lists,
            num_probed=probed,
            recall=recall,
            num_queries=int(hits.sum()),
            num_vectors=len(ids),
        )
        return out

    def write(self, path: Path) -> None:
        """Write the index to a file."""
        import faiss

        faiss.write_index(self._index, str(path))

    @classmethod
    def read(cls, path: Path, dimension: int, info: IndexInfo) -> VectorIndex:
        """Read what `write` wrote.

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
        out = cls(dimension)
        out._index, out.info = found, info
        if info.kind == "ivf":
            out._index.nprobe = info.num_probed
            out._index.set_direct_map_type(_HASHTABLE)
        return out


def _moved(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """Turn each vector by a random angle: to a similarity between `HIT` and 1."""
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(HIT, 1.0, (len(vectors), 1)).astype(np.float32)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
