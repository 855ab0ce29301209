"""The self-join against an independent float64 brute force, on easy and on hard data."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import knn_matrix, matrix
from index_build.selfjoin.matrix import NeighbourMatrix
from nearfield.errors import InputRejected, UsageError
from nearfield.space import SPACES, Float32s, SpaceName

N = 12_000
"""More than `matrix.SMALL`, so that the join runs; k small enough for a partition to pay."""


def all_distances(vectors: Float32s, rows: np.ndarray, space: SpaceName) -> np.ndarray:
    wide = vectors.astype(np.float64)
    if space == "ip":
        distances = -(wide[rows] @ wide.T)
    else:
        if space == "cosine":
            wide = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
            wide = wide.astype(np.float64)
        distances = np.stack([((wide - wide[row]) ** 2).sum(axis=1) for row in rows])
        distances = distances / 2 if space == "cosine" else np.sqrt(distances)
    distances[np.arange(len(rows)), rows] = np.inf
    return distances


def check_structure(found: NeighbourMatrix, n: int, k: int) -> None:
    neighbours, distances = found.neighbours, found.distances
    assert neighbours.shape == distances.shape == (n, min(k, n - 1))
    assert neighbours.dtype == np.int32
    assert distances.dtype == np.float32
    if not neighbours.size:
        return
    assert neighbours.min() >= 0
    assert neighbours.max() < n
    assert (neighbours != np.arange(n)[:, None]).all()
    ordered = np.sort(neighbours, axis=1)
    assert (ordered[:, 1:] != ordered[:, :-1]).all()
    step = np.diff(distances, axis=1)
    assert (step >= 0).all()
    assert (np.diff(neighbours, axis=1)[step == 0] > 0).all()


def recall_of(found: NeighbourMatrix, vectors: Float32s, space: SpaceName = "l2") -> float:
    rows = np.random.default_rng(5).choice(len(vectors), 150, replace=False)
    truth = all_distances(vectors, rows, space)
    k = found.neighbours.shape[1]
    kth = np.partition(truth, k - 1, axis=1)[:, k - 1]
    stored = np.take_along_axis(truth, found.neighbours[rows].astype(np.int64), 1)
    np.testing.assert_allclose(found.distances[rows], stored, rtol=1e-5, atol=1e-30)
    return float((stored <= kth[:, None] * (1 + 1e-6) + 1e-300).mean())


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 20),
    k=st.integers(1, 50),
    distinct=st.integers(1, 40),
    space=st.sampled_from(SPACES),
    seed=st.integers(0, 1000),
)
def test_small_sets_equal_brute_force(
    n: int, d: int, k: int, distinct: int, space: SpaceName, seed: int
) -> None:
    random = np.random.default_rng(seed)
    pool = random.integers(1, 5, (distinct, d)).astype(np.float32)
    vectors = pool[random.integers(0, distinct, n)]
    found = knn_matrix(vectors, k, space=space, threads=1)
    check_structure(found, n, k)
    truth = np.sort(all_distances(vectors, np.arange(n), space), axis=1)[:, : min(k, n - 1)]
    np.testing.assert_allclose(found.distances, truth, rtol=1e-6, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 300),
    d=st.integers(1, 40),
    k=st.integers(1, 60),
    distinct=st.integers(2, 300),
    seed=st.integers(0, 1000),
)
def test_sweep_with_duplicates_has_the_distances_of_brute_force(
    n: int, d: int, k: int, distinct: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-3, 4, (distinct, d)).astype(np.float32)
    vectors = vectors[random.integers(0, distinct, n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "SMALL", 0)
        found = knn_matrix(vectors, k, threads=1)
    check_structure(found, n, k)
    truth = np.sort(all_distances(vectors, np.arange(n), "l2"), axis=1)[:, : min(k, n - 1)]
    np.testing.assert_array_equal(found.distances, truth.astype(np.float32))


@pytest.mark.parametrize("asked", [0.8, 0.95, 0.99])
def test_recall_is_what_was_asked(asked: float) -> None:
    vectors = manifold(20_000, 32)
    found = knn_matrix(vectors, 10, recall=asked)
    check_structure(found, len(vectors), 10)
    assert found.report.chosen["cells"] > 1
    assert recall_of(found, vectors) >= asked - 0.01
    assert found.report.recall >= asked


def test_cosine_recall() -> None:
    vectors = manifold(N, 24)
    found = knn_matrix(vectors, 10, space="cosine")
    check_structure(found, N, 10)
    assert recall_of(found, vectors, "cosine") >= 0.94


def test_threads_change_nothing() -> None:
    vectors = manifold(N, 24)
    one, two, five = (knn_matrix(vectors, 10, threads=threads) for threads in (1, 2, 5))
    for other in (two, five):
        np.testing.assert_array_equal(one.neighbours, other.neighbours)
        np.testing.assert_array_equal(one.distances, other.distances)


def test_many_equal_vectors() -> None:
    vectors = manifold(N, 24)
    vectors[: 2 * N // 5] = vectors[np.random.default_rng(0).integers(0, N, 2 * N // 5)]
    found = knn_matrix(vectors, 10)
    check_structure(found, N, 10)
    assert recall_of(found, vectors) >= 0.94


def test_zero_rows_by_the_ten_thousand() -> None:
    vectors = np.concatenate([np.zeros((67_000, 12), np.float32), manifold(N, 12)])
    found = knn_matrix(vectors, 20)
    check_structure(found, len(vectors), 20)
    assert found.neighbours[0].tolist() == list(range(1, 21))
    assert found.neighbours[60_000].tolist() == list(range(20))
    assert (found.distances[:67_000] == 0).all()
    assert recall_of(found, vectors) >= 0.94


def test_all_rows_equal() -> None:
    found = knn_matrix(np.ones((5_000, 3), np.float32), 7)
    check_structure(found, 5_000, 7)
    assert found.neighbours[3].tolist() == [0, 1, 2, 4, 5, 6, 7]


def hard_data(name: str) -> Float32s:
    random = np.random.default_rng(1)
    vectors = manifold(N, 16)
    if name == "one giant cluster":
        vectors[: N // 2] = 3 + 1e-3 * vectors[: N // 2]
    elif name == "a giant cluster of nearly equal points":
        vectors[: N // 2] = 3 + 1e-6 * vectors[: N // 2]
    elif name == "heavy tails":
        vectors *= random.pareto(0.7, (N, 1)).astype(np.float32) + 1
    elif name == "mean 1000":
        vectors += 1_000
    elif name == "denormals":
        vectors *= np.float32(1e-38)
    elif name == "huge":
        vectors *= np.float32(1e35)
    elif name == "integers":
        vectors = random.integers(0, 4, (N, 6)).astype(np.float32)
    elif name == "a line":
        vectors = vectors[:, :1].copy()
    elif name == "small islands":
        vectors = np.repeat(random.normal(size=(N // 6, 8)), 6, axis=0).astype(np.float32)
        vectors += random.normal(scale=1e-3, size=vectors.shape).astype(np.float32)
    return vectors


@pytest.mark.parametrize(
    "name",
    [
        "one giant cluster",
        "a giant cluster of nearly equal points",
        "heavy tails",
        "mean 1000",
        "denormals",
        "huge",
        "integers",
        "a line",
        "small islands",
    ],
)
def test_hard_data(name: str) -> None:
    vectors = hard_data(name)
    found = knn_matrix(vectors, 10)
    check_structure(found, N, 10)
    assert recall_of(found, vectors) >= 0.94


def test_no_cell_is_a_giant() -> None:
    vectors = hard_data("one giant cluster")
    random = np.random.default_rng(3)
    vectors[: N // 2] *= 1 + 0.01 * random.pareto(1.0, (N // 2, 1)).astype(np.float32)
    report = knn_matrix(vectors, 10).report
    assert report.chosen["largest cell"] <= 6 * N / report.chosen["cells"]


def test_mapped_vectors_are_read_in_place(tmp_path: Path) -> None:
    vectors = manifold(N, 16)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        knn_matrix(mapped, 5).neighbours, knn_matrix(vectors, 5).neighbours
    )


def test_memory_stays_within_the_stated_bound() -> None:
    vectors = manifold(60_000, 8)
    knn_matrix(vectors[:N], 10, threads=1)
    tracemalloc.start()
    found = knn_matrix(vectors, 10, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = 64 + 16 * (1 + found.report.chosen["visits"])
    assert peak <= found.neighbours.nbytes + found.distances.nbytes + 60_000 * stated + (40 << 20)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="memory_bytes"):
        knn_matrix(manifold(N, 16), 10, memory_bytes=1_000)


def test_bad_requests_are_refused() -> None:
    vectors = np.ones((3, 2), np.float32)
    with pytest.raises(UsageError):
        knn_matrix(vectors, 0)
    with pytest.raises(UsageError):
        knn_matrix(vectors, 1, recall=0)
    vectors[1, 1] = np.nan
    with pytest.raises(InputRejected):
        knn_matrix(vectors, 1)
