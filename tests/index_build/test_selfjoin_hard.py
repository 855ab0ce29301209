"""Giants, heavy tails, inner products and the memory bound, small ones fast and large ones long;
real data where it is there."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import knn_matrix
from nearfield.space import Float32s, SpaceName
from tests.index_build.test_selfjoin import check_structure, recall_of

GIANTS = ("ball", "zipf clusters", "zipf lengths", "radii over ten decades")


def data_of(name: str, n: int, d: int) -> Float32s:
    random = np.random.default_rng(4)
    vectors = manifold(n, d)
    if name == "ball":
        # distinct points, 60% of all, within a ten-thousandth of the extent
        vectors[: 6 * n // 10] = 3 + 1e-4 * vectors[: 6 * n // 10]
    elif name == "zipf clusters":
        share = 1 / np.arange(1, 1 + n // 30) ** 1.1
        chosen = random.choice(len(share), n, p=share / share.sum())
        centres = 4 * random.normal(size=(len(share), d))
        vectors = centres[chosen] + 0.3 * random.normal(size=(n, d))
    elif name == "zipf lengths":
        vectors *= random.zipf(1.5, (n, 1)).clip(max=10**6)
    elif name == "radii over ten decades":
        vectors = random.normal(size=(n, d)) * np.exp(random.uniform(-20, 3, (n, 1)))
    return np.ascontiguousarray(vectors[random.permutation(n)], np.float32)


def check_bounded(name: str, n: int, d: int, k: int) -> None:
    vectors = data_of(name, n, d)
    found = knn_matrix(vectors, k)
    check_structure(found, n, k)
    assert recall_of(found, vectors) >= 0.94
    chosen = found.report.chosen
    if found.report.method == "sweep":
        # no cells that would save work were found: every pair, in bounded memory
        assert name == "radii over ten decades"
        return
    assert chosen["largest cell"] <= 4 * max(8 * k, 128)
    assert chosen["pairs per point"] <= 0.25 * n


@pytest.mark.parametrize("name", GIANTS)
def test_no_cell_is_a_giant(name: str) -> None:
    check_bounded(name, 15_000, 12, 10)


@pytest.mark.long
@pytest.mark.parametrize("name", GIANTS)
def test_no_cell_is_a_giant_among_a_hundred_thousand(name: str) -> None:
    check_bounded(name, 100_000, 24, 100)


@pytest.mark.parametrize("lengths", ["as they are", "heavy tails", "equal", "tiny and huge"])
def test_inner_products_reach_the_recall(lengths: str) -> None:
    random, n, k = np.random.default_rng(6), 20_000, 8
    vectors = manifold(n, 16) - manifold(n, 16).mean(axis=0)
    if lengths == "heavy tails":
        vectors *= random.pareto(2, (n, 1)) + 1
    elif lengths == "equal":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    elif lengths == "tiny and huge":
        vectors *= 10.0 ** random.uniform(-12, 12, (n, 1))
    vectors = vectors.astype(np.float32)
    vectors[5], vectors[7] = 0, vectors[6]
    found = knn_matrix(vectors, k, space="ip")
    check_structure(found, n, k)
    if lengths != "tiny and huge":
        assert found.report.method == "cells"
    rows = np.concatenate([[5, 6, 7], random.choice(n, 150, replace=False)])
    wide = vectors.astype(np.float64)
    truth = -(wide[rows] @ wide.T)
    truth[np.arange(len(rows)), rows] = np.inf
    stored = np.take_along_axis(truth, found.neighbours[rows].astype(np.int64), 1)
    np.testing.assert_allclose(found.distances[rows], stored, rtol=1e-4, atol=1e-30)
    kth = np.sort(truth, axis=1)[:, k - 1 : k]
    assert (stored <= kth + 1e-6 * np.abs(kth)).mean() >= 0.94
    other = knn_matrix(vectors, k, space="ip", threads=1)
    np.testing.assert_array_equal(found.neighbours, other.neighbours)
    np.testing.assert_array_equal(found.distances, other.distances)


@pytest.mark.long
def test_many_dimensions_and_many_neighbours() -> None:
    vectors = manifold(20_000, 1_024)
    found = knn_matrix(vectors, 1_000, recall=0.9)
    check_structure(found, 20_000, 1_000)
    assert recall_of(found, vectors) >= 0.89


@pytest.mark.long
@pytest.mark.parametrize("space", ["l2", "cosine"])
def test_arrays_stay_within_the_bound_that_was_given(space: SpaceName) -> None:
    vectors, bound = manifold(200_000, 32), 200 << 20
    knn_matrix(vectors[:12_000], 10, space=space)
    tracemalloc.start()
    found = knn_matrix(vectors, 50, space=space, memory_bytes=bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= found.neighbours.nbytes + found.distances.nbytes + bound


def chroma(folder: Path) -> Float32s:
    path = folder / "billboard-chroma24" / "chroma24_dev.f32.npy.zst"
    with path.open("rb") as file:
        raw = zstandard.ZstdDecompressor().stream_reader(file).read()
    return np.load(io.BytesIO(raw), allow_pickle=False)


@pytest.mark.long
def test_chroma_frames_with_their_zero_rows(real_data: Path) -> None:
    vectors = chroma(real_data)
    found = knn_matrix(vectors, 100)
    check_structure(found, 496_468, 100)
    assert recall_of(found, vectors) >= 0.94


@pytest.mark.long
def test_digits(real_data: Path) -> None:
    with np.load(real_data / "mnist-like-30k" / "mnist_t10k.npz") as file:
        vectors = file["x"].astype(np.float32)
    found = knn_matrix(vectors, 100)
    check_structure(found, 10_000, 100)
    assert recall_of(found, vectors) >= 0.94
