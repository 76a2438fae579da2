"""An approximate index with removal, chosen only with the recall that was measured on the stored vectors.

FAISS' inverted file: vectors lie in lists around centres, and a search looks into the lists nearest to the query.
Vectors are kept in half precision, so that a million entries take 1.6 GB and not 3.1. An approximate miss is a leak:
`IvfIndex.of` measures how many lists must be probed on queries whose nearest neighbours it knows exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.errors import ConfigError
from eval.types import Progress
from guard.indexes import HIT, Ids, IndexInfo, VectorIndex, Vectors, read_faiss

__all__ = ["MIN_VECTORS", "IvfIndex"]

MIN_VECTORS = 5_000
"""Below this an exact search costs less than the encoder, and IVF is refused."""
_NUM_QUERIES = 4096
_HASHTABLE = 2
"""``faiss::DirectMap::Hashtable``: ids of any kind to where their vectors are, kept through removals."""
_TRAINING_VECTORS_PER_LIST = 48
_MOST_PROBED_SHARE = 0.5


class IvfIndex(VectorIndex):
    """Searches the lists nearest to the query.

    Args:
        index: FAISS' trained index.
        info: What was measured.
    """

    def __init__(self, index: Any, info: IndexInfo) -> None:
        super().__init__(index.d)
        self.faiss_index, self.info = index, info
        index.nprobe = info.num_probed
        index.set_direct_map_type(_HASHTABLE)

    @classmethod
    def read(cls, path: Path, dimension: int, info: IndexInfo) -> IvfIndex:
        """Read what `guard.indexes.write_faiss` wrote.

        Raises:
            ArtifactError: If the file is no index, or one of another dimension.
        """
        return cls(read_faiss(path, dimension), info)

    @classmethod
    def of(
        cls, exact: VectorIndex, *, min_recall: float = 0.999, seed: int = 0, progress: Progress | None = None
    ) -> IvfIndex:
        """Return an index of the same vectors that probes just enough lists for the recall asked for.

        Queries are stored vectors moved at random to similarities between `HIT` and 1.

        Args:
            exact: Whose vectors; its search says what is true.
            min_recall: Share of the queries' nearest neighbours that must be found.
            seed: Of the training sample and the queries.
            progress: Told vectors and queries done.

        Raises:
            ConfigError: If there are too few vectors, or the recall is not reached while half of them are searched.
        """
        import faiss

        told = progress or (lambda label, done, total: None)
        ids = np.sort(exact.ids())
        if len(ids) < MIN_VECTORS:
            raise ConfigError(
                f"An IVF index needs at least {MIN_VECTORS} vectors, the store has {len(ids)}; "
                "exact search is faster there: keep the exact index."
            )
        rng = np.random.default_rng(seed)
        num_lists = 2 ** round(np.log2(2 * np.sqrt(len(ids))))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(exact.dimension),
            exact.dimension,
            num_lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        index.cp.seed, index.cp.spherical, index.cp.niter = seed + 1, True, 8
        index.cp.min_points_per_centroid = 1
        told("training the index", 0, 1)
        sample = np.sort(rng.permutation(ids)[: _TRAINING_VECTORS_PER_LIST * num_lists])
        index.train(exact.vectors(sample))
        told("training the index", 1, 1)
        done = 0
        for vectors, keys in exact.batches():
            index.add_with_ids(vectors, keys)
            done += len(keys)
            told("filling the index", done, len(ids))
        queries = _moved(exact.vectors(rng.permutation(ids)[:_NUM_QUERIES]), rng)
        told("measuring the recall", 0, 1)
        best = exact.search(queries, 1)[0][:, 0]
        queries, best = queries[best >= HIT], best[best >= HIT]
        probed, recall = 1, 0.0
        while True:
            index.nprobe = probed
            found = index.search(queries, 1)[1][:, 0]
            found[found < 0] = ids[0]
            similarities = np.einsum("nd,nd->n", queries, exact.vectors(found))
            recall = float((similarities >= best - 1e-6).mean())
            if recall >= min_recall or probed >= _MOST_PROBED_SHARE * num_lists:
                break
            probed = -(-probed * 5 // 4)
        told("measuring the recall", 1, 1)
        if recall < min_recall:
            raise ConfigError(
                f"IVF finds {recall:.4f} of the nearest neighbours where {min_recall} was asked for, "
                f"even with {probed} of {num_lists} lists searched; keep the exact index."
            )
        return cls(
            index,
            IndexInfo(
                kind="ivf",
                num_lists=num_lists,
                num_probed=probed,
                recall=recall,
                num_queries=len(queries),
                num_vectors=len(ids),
            ),
        )

    def __len__(self) -> int:
        return int(self.faiss_index.ntotal)

    def _add(self, vectors: Vectors, ids: Ids) -> None:
        self.faiss_index.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> int:
        """Remove ids and return how many of them there were."""
        import faiss

        return int(self.faiss_index.remove_ids(faiss.IDSelectorArray(ids)))

    def search(self, vectors: Vectors, num: int) -> tuple[Vectors, Ids]:
        """Return similarities and ids of the ``num`` nearest found, shape ``(n, num)``; id -1 where there are fewer."""
        similarities, ids = self.faiss_index.search(np.ascontiguousarray(vectors, dtype=np.float32), num)
        return similarities, ids

    def vectors(self, ids: Ids) -> Vectors:
        """Return the stored vectors of ids that are there, shape ``(n, D)``, as half precision keeps them."""
        out = np.empty((len(ids), self.dimension), dtype=np.float32)
        for row, key in enumerate(ids.tolist()):
            self.faiss_index.reconstruct(key, out[row])
        return out

    def ids(self) -> Ids:
        """Return all ids, list by list."""
        import faiss

        lists = self.faiss_index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy()
            for i in range(self.faiss_index.nlist)
            if lists.list_size(i)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _moved(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """Turn each vector by a random angle: to a similarity between `HIT` and 1."""
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(HIT, 1.0, (len(vectors), 1)).astype(np.float32)
    return (cosine * vectors + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
