import numpy as np
import pytest

from eval.errors import ArtifactError, ConfigError
from guard.indexes import MIN_VECTORS, IndexInfo, VectorIndex

DIMENSION = 16


def unit(num, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((num, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors():
    return unit(MIN_VECTORS + 500)


@pytest.fixture(params=["exact", "ivf"])
def index(request, vectors):
    index = VectorIndex(DIMENSION)
    index.add(vectors, np.arange(len(vectors)) * 3)
    return index if request.param == "exact" else index.as_ivf(min_recall=0.99)


def test_both_kinds_add_remove_and_survive_a_file(index, vectors, tmp_path):
    def nearest(which, row):
        return int(which.search(vectors[row : row + 1], 1)[1][0, 0])

    assert nearest(index, 7) == 21
    new = unit(1, seed=9)
    index.add(new, np.array([10**6]))
    assert index.search(new, 1)[1][0, 0] == 10**6
    assert index.remove(np.array([21, 10**6])) == 2
    assert nearest(index, 7) != 21
    assert len(index) == len(vectors) - 1
    index.write(tmp_path / "x.faiss")
    read = VectorIndex.read(tmp_path / "x.faiss", DIMENSION, index.info)
    assert nearest(read, 8) == 24
    assert sorted(read.ids().tolist()) == sorted(index.ids().tolist())
    stored, ids = read.all_vectors()
    row = ids.tolist().index(24)
    assert np.array_equal(stored[row], vectors[8])
    assert read.remove(np.array([24])) == 1
    assert nearest(read, 8) != 24


def test_the_recall_that_was_measured_holds_on_other_queries(vectors):
    exact = VectorIndex(DIMENSION)
    exact.add(vectors, np.arange(len(vectors)))
    ivf = exact.as_ivf(min_recall=0.99)
    assert ivf.info.kind == "ivf"
    assert ivf.info.recall >= 0.99
    assert ivf.info.num_vectors == len(vectors)
    queries = unit(300, seed=5) + 2 * vectors[:300]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    true, found = exact.search(queries, 1)[1], ivf.search(queries, 1)[1]
    assert (true == found).mean() >= 0.97


def test_a_small_store_stays_exact():
    index = VectorIndex(DIMENSION)
    index.add(unit(10), np.arange(10))
    with pytest.raises(ConfigError, match="keep the exact index"):
        index.as_ivf()


def test_what_is_no_index_or_of_another_size_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="not a readable FAISS index"):
        VectorIndex.read(tmp_path / "x", DIMENSION, IndexInfo())
    VectorIndex(8).write(tmp_path / "y")
    with pytest.raises(ArtifactError, match="dimension 8"):
        VectorIndex.read(tmp_path / "y", DIMENSION, IndexInfo())
    with pytest.raises(ConfigError, match="do not fit"):
        VectorIndex(DIMENSION).add(np.zeros((1, 3), dtype=np.float32), np.array([1]))
