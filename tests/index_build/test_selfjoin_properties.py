"""Properties of the self-join over n, d, k, duplicates and spaces, and how it refuses bad input.

At recall 1 it equals brute force; below, lists are whole even where cells hold a few points.
"""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build.selfjoin import knn_matrix, matrix, plan, probing
from nearfield.errors import InputRejected, UsageError
from nearfield.space import SPACES, Float32s, SpaceName
from tests.index_build.test_selfjoin import check_structure


@st.composite
def vector_sets(draw: st.DrawFn, widths: tuple[int, ...]) -> Float32s:
    """Whole numbers, for which float32 products are exact; up to all rows equal; some rows zero."""
    n, d = draw(st.integers(1, 300)), draw(st.sampled_from(widths))
    distinct, zeros = draw(st.integers(1, n)), draw(st.floats(0, 1))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    vectors = random.integers(-3, 4, (distinct, d)).astype(np.float32)
    vectors = vectors[random.integers(0, distinct, n)]
    vectors[random.random(n) < zeros * draw(st.integers(0, 1))] = 0
    return vectors


def without_zeros(vectors: Float32s, space: SpaceName) -> Float32s:
    if space == "cosine":
        vectors[~vectors.any(axis=1)] = 1
    return vectors


def distances_of_all(vectors: Float32s, space: SpaceName) -> np.ndarray:
    """float64 [n, n] by products, exact for whole numbers; the row itself at infinity."""
    wide = vectors.astype(np.float64)
    if space == "cosine":
        wide = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
        wide = wide.astype(np.float64)
    products = wide @ wide.T
    squares = np.diag(products)
    squared = np.maximum(squares[:, None] + squares - 2 * products, 0)
    found = {"l2": np.sqrt(squared), "cosine": squared / 2, "ip": -products}[space]
    np.fill_diagonal(found, np.inf)
    return found


@settings(max_examples=40, deadline=None)
@given(
    vectors=vector_sets((1, 2, 3, 17, 64, 1_024)),
    k=st.integers(1, 1_000),
    space=st.sampled_from(SPACES),
)
def test_recall_of_one_is_brute_force(vectors: Float32s, k: int, space: SpaceName) -> None:
    vectors = without_zeros(vectors, space)
    found = knn_matrix(vectors, k, space=space, recall=1, threads=1)
    check_structure(found, len(vectors), k)
    columns = min(k, len(vectors) - 1)
    truth = distances_of_all(vectors, space)
    if space == "cosine":
        expected = np.sort(truth, axis=1)[:, :columns]
        np.testing.assert_allclose(found.distances, expected, rtol=1e-6, atol=1e-7)
        return
    rounded = truth.astype(np.float32)
    rows = np.broadcast_to(np.arange(len(vectors)), rounded.shape)
    order = np.lexsort((rows, rounded), axis=1)[:, :columns]
    np.testing.assert_array_equal(found.neighbours, order)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(rounded, order, 1))


@pytest.fixture(scope="module")
def tiny_cells() -> Iterator[None]:
    """Cells of eight points, wherever there are that many: two cells at n = 16 already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "SMALL", 0)
        for module in (plan, probing):
            patch.setattr(module, "cell_size", lambda _n, _k: 8)
            patch.setattr(module, "EXACT_SHARE", 1.0)
        yield


@pytest.mark.usefixtures("tiny_cells")
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("n", [40, 300])
def test_tiny_cells_are_what_runs(n: int, space: SpaceName) -> None:
    vectors = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    found = knn_matrix(vectors, 5, space=space, recall=0.5)
    assert found.report.method == "cells"
    assert found.report.chosen["cells"] > n // 16
    assert found.report.chosen["pairs per point"] < 0.9 * n
    check_structure(found, n, 5)


@st.composite
def mixed_sets(draw: st.DrawFn) -> Float32s:
    """Vectors of whole numbers, or clusters of real ones with lengths over some decades."""
    vectors = draw(vector_sets((1, 2, 3, 17, 64)))
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 10_000)))
        lengths = 10 ** random.uniform(-draw(st.integers(0, 3)), 1, (len(vectors), 1))
        vectors = vectors * lengths + 0.1 * random.normal(size=vectors.shape)
        vectors[random.random(len(vectors)) < 0.2] = vectors[0]
    return vectors.astype(np.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_cells")
@settings(max_examples=150, deadline=None)
@given(
    vectors=mixed_sets(),
    k=st.one_of(st.integers(1, 12), st.integers(1, 400)),
    space=st.sampled_from(SPACES),
    recall=st.floats(0.5, 0.99),
)
def test_below_recall_one_lists_are_whole_and_true(
    vectors: Float32s, k: int, space: SpaceName, recall: float
) -> None:
    vectors = without_zeros(vectors, space)
    n, columns = len(vectors), min(k, len(vectors) - 1)
    found, other = (
        knn_matrix(vectors, k, space=space, recall=recall, threads=threads) for threads in (1, 2)
    )
    check_structure(found, n, k)
    np.testing.assert_array_equal(found.neighbours, other.neighbours)
    np.testing.assert_array_equal(found.distances, other.distances)
    truth = distances_of_all(vectors, space)
    stored = np.take_along_axis(truth, found.neighbours.astype(np.int64), 1)
    extent = np.abs(truth[np.isfinite(truth)]).max(initial=0)
    np.testing.assert_allclose(found.distances, stored, rtol=1e-5, atol=2e-7 * extent)
    # no place can be nearer than the true one
    best = np.sort(truth, axis=1)[:, :columns]
    assert (found.distances >= best - 1e-5 * np.abs(best) - 2e-7 * extent).all()
    if found.report.method != "cells":
        np.testing.assert_allclose(found.distances, best, rtol=1e-5, atol=2e-7 * extent)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        (np.ones((3, 2)), "float64"),
        (np.ones((3, 2), np.int32), "int32"),
        (np.ones(3, np.float32), r"\(3,\)"),
        (np.ones((0, 2), np.float32), r"\(0, 2\)"),
        (np.ones((2, 0), np.float32), r"\(2, 0\)"),
        (np.array([[0, 1], [np.nan, 1]], np.float32), "row 1"),
        (np.array([[np.inf, 1]], np.float32), "row 0"),
    ],
)
def test_vectors_that_cannot_be_joined_are_named(vectors: np.ndarray, expected: str) -> None:
    with pytest.raises(InputRejected, match=expected):
        knn_matrix(vectors, 1)


def test_zero_rows_have_no_direction() -> None:
    with pytest.raises(InputRejected, match="row 1"):
        knn_matrix(np.array([[1, 1], [0, 0]], np.float32), 1, space="cosine")


@pytest.mark.parametrize(
    ("k", "recall"), [(0, 0.9), (-1, 0.9), (1, 0.0), (1, 1.1), (1, -0.5), (1, float("nan"))]
)
def test_requests_out_of_range_are_refused(k: int, recall: float) -> None:
    with pytest.raises(UsageError, match="expected k >= 1"):
        knn_matrix(np.ones((3, 2), np.float32), k, recall=recall)


@pytest.mark.parametrize("space", SPACES)
def test_a_refusal_for_memory_says_what_would_do(space: SpaceName) -> None:
    vectors = np.random.default_rng(0).normal(size=(9_000, 8)).astype(np.float32)
    given, refused = 1_000, 0
    while True:
        try:
            found = knn_matrix(vectors, 10, space=space, memory_bytes=given)
        except UsageError as error:
            asked = re.search(r"at least ([\d,]+)", str(error))
            assert asked is not None
            assert int(asked[1].replace(",", "")) > given
            given, refused = int(asked[1].replace(",", "")), refused + 1
        else:
            break
    assert 0 < refused <= 4
    check_structure(found, 9_000, 10)
    plenty = knn_matrix(vectors, 10, space=space)
    assert plenty.report.method == found.report.method == "cells"
