from pathlib import Path

import numpy as np
import pytest

from eval.errors import ArtifactError, ConfigError
from guard import indexes
from guard.indexes import BLOCK, ExactIndex, read_faiss, write_faiss
from guard.ivf import MIN_VECTORS, IvfIndex

DIMENSION = 16


def unit(num, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((num, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors():
    return unit(MIN_VECTORS + 500)


@pytest.fixture(params=["exact", "ivf"])
def index(request, vectors):
    index = ExactIndex(DIMENSION)
    index.add(vectors, np.arange(len(vectors)) * 3)
    return index if request.param == "exact" else IvfIndex.of(index, min_recall=0.99)


def test_both_kinds_add_and_remove(index, vectors):
    def nearest(row):
        return int(index.search(vectors[row : row + 1], 1)[1][0, 0])

    assert nearest(7) == 21
    new = unit(1, seed=9)
    index.add(new, np.array([10**6]))
    assert index.search(new, 1)[1][0, 0] == 10**6
    assert index.remove(np.array([21, 10**6, 22])) == 2, "22 was never there"
    assert nearest(7) != 21
    assert len(index) == len(vectors) - 1
    assert sorted(index.ids().tolist()) == sorted({3 * i for i in range(len(vectors))} - {21})
    tolerance = 0 if index.info.kind == "exact" else 1e-3
    assert np.allclose(index.vectors(np.array([24, 0])), vectors[[8, 0]], rtol=0, atol=tolerance)
    assert sum(len(keys) for _, keys in index.batches()) == len(index)


def test_an_ivf_index_survives_a_file(vectors, tmp_path):
    exact = ExactIndex(DIMENSION)
    exact.add(vectors, np.arange(len(vectors)) * 3)
    index = IvfIndex.of(exact, min_recall=0.99)
    write_faiss(index.faiss_index, tmp_path / "x.faiss")
    read = IvfIndex.read(tmp_path / "x.faiss", DIMENSION, index.info)
    before, after = index.search(vectors[:50], 3), read.search(vectors[:50], 3)
    assert np.array_equal(before[1], after[1])
    assert read.remove(np.array([24])) == 1
    assert read.search(vectors[8:9], 1)[1][0, 0] != 24


def test_exact_search_is_that_of_one_matrix_product(monkeypatch):
    monkeypatch.setattr(indexes, "BLOCK", 8)
    index, rng, there = ExactIndex(DIMENSION), np.random.default_rng(0), {}
    for step in range(40):
        ids = np.arange(20 * step, 20 * step + int(rng.integers(1, 20)))
        rows = unit(len(ids), seed=step)
        index.add(rows, ids)
        there |= dict(zip(ids.tolist(), rows, strict=True))
        gone = rng.choice(list(there), size=min(len(there), int(rng.integers(0, 18))), replace=False)
        assert index.remove(gone) == len(gone)
        for key in gone.tolist():
            del there[key]
        assert sorted(index.ids().tolist()) == sorted(there)
    queries, keys = unit(5, seed=99), np.array(sorted(there))
    truth = queries @ np.stack([there[k] for k in keys.tolist()]).T
    order = np.argsort(-truth, axis=1)[:, :7]
    similarities, found = index.search(queries, 7)
    assert np.array_equal(found, keys[order])
    assert np.allclose(similarities, np.take_along_axis(truth, order, axis=1), atol=1e-6)
    _, all_found = index.search(queries, len(keys) + 2)
    assert (all_found[:, -2:] == -1).all(), "fewer are there than were asked for"
    assert index.remove(keys) == len(keys)
    assert index.search(queries, 1)[1].tolist() == [[-1]] * 5


def test_a_larger_index_takes_room_by_the_block():
    index = ExactIndex(2)
    index.add(np.zeros((BLOCK + 1, 2), dtype=np.float32), np.arange(BLOCK + 1))
    assert len(index._blocks) == 2
    index.remove(np.array([5]))
    assert len(index._blocks) == 1


def test_the_recall_that_was_measured_holds_on_other_queries(vectors):
    exact, told = ExactIndex(DIMENSION), []
    exact.add(vectors, np.arange(len(vectors)))
    ivf = IvfIndex.of(exact, min_recall=0.99, progress=lambda *step: told.append(step))
    assert told[-1] == ("measuring the recall", 1, 1)
    assert ivf.info.kind == "ivf"
    assert ivf.info.recall >= 0.99
    assert ivf.info.num_vectors == len(vectors)
    queries = unit(300, seed=5) + 2 * vectors[:300]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    true, found = exact.search(queries, 1)[1], ivf.search(queries, 1)[1]
    assert (true == found).mean() >= 0.97


def test_a_small_store_stays_exact():
    index = ExactIndex(DIMENSION)
    index.add(unit(10), np.arange(10))
    with pytest.raises(ConfigError, match="keep the exact index"):
        IvfIndex.of(index)


def test_what_is_no_index_or_of_another_size_is_refused(tmp_path):
    import faiss

    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="not a readable FAISS index"):
        read_faiss(tmp_path / "x", DIMENSION)
    write_faiss(faiss.IndexFlatIP(8), tmp_path / "y")
    with pytest.raises(ArtifactError, match="dimension 8"):
        read_faiss(tmp_path / "y", DIMENSION)
    with pytest.raises(ConfigError, match="do not fit"):
        ExactIndex(DIMENSION).add(np.zeros((1, 3), dtype=np.float32), np.array([1]))


def test_a_full_disk_is_an_error():
    import faiss

    with pytest.raises(OSError, match="No space left"):
        write_faiss(faiss.IndexFlatIP(8), Path("/dev/full"))
