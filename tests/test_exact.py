"""Exact search is exact: order, ties, offsets, the row itself, all spaces, block by block."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfield import exact
from nearfield.distances import list_distances
from nearfield.exact import exact_search
from nearfield.space import pair_distances, prepared
from tests.index_build.brute import nearest

SPACES = ["l2", "cosine", "ip"]


@settings(max_examples=60)
@given(
    space=st.sampled_from(SPACES), n=st.integers(2, 60), d=st.integers(1, 8),
    k=st.integers(1, 70), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_random_vectors_as_brute_force(space, n, d, k, seed):
    vectors = prepared(
        np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32) + 0.1, space
    )
    rows = np.arange(n)
    _, found = exact_search(vectors, vectors, k, space=space, own_rows=rows)
    _, true = nearest(vectors, min(k, n - 1), space)
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(n=st.integers(2, 80), k=st.integers(1, 90), seed=st.integers(0, 10_000))
def test_ties_are_broken_by_row(n, k, seed):
    vectors = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(np.float32)
    found, distances = exact_search(vectors, vectors, k, space="l2", own_rows=np.arange(n))
    rows, true = nearest(vectors, min(k, n - 1), "l2")
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_array_equal(distances, true)


@pytest.mark.parametrize("space", SPACES)
def test_a_large_offset_doesnt_cost_exactness(space):
    rng = np.random.default_rng(1)
    vectors = prepared((1000 + rng.standard_normal((2_000, 16))).astype(np.float32), space)
    found, distances = exact_search(vectors[:50], vectors, 20, space=space, own_rows=np.arange(50))
    for i in range(50):
        every = pair_distances(vectors[i], vectors, space)
        every[i] = np.inf
        order = np.lexsort((np.arange(len(every)), every))[:20]
        np.testing.assert_array_equal(found[i], order)
        np.testing.assert_array_equal(distances[i], every[order])


def test_several_blocks_give_what_one_gives(monkeypatch):
    vectors = np.random.default_rng(2).standard_normal((500, 8)).astype(np.float32)
    whole = exact_search(vectors[:20], vectors, 30, space="l2")
    monkeypatch.setattr(
        exact, "row_blocks", lambda vectors: (vectors[i : i + 7] for i in range(0, 500, 7))
    )
    for one, other in zip(whole, exact_search(vectors[:20], vectors, 30, space="l2"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("space", ["l2", "ip"])
@pytest.mark.parametrize("n", [2, 30, 34, 35, 90])
def test_products_beyond_float32_lose_nobody(space, n):
    # products of such vectors overflow, so that the float32 product proposes nothing of use
    vectors = np.random.default_rng(6).standard_normal((n, 4)).astype(np.float32)
    vectors *= np.float32(1e25 if space == "l2" else 1e18)
    found, distances = exact_search(vectors, vectors, 5, space=space, own_rows=np.arange(n))
    rows, true = nearest(vectors, min(5, n - 1), space)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(distances, true, rtol=1e-6)


def test_distances_beyond_float32_are_neighbours_too():
    vectors = np.array([[3e38], [-3e38], [-3e38]], np.float32)
    found, distances = exact_search(vectors, vectors, 2, space="l2", own_rows=np.arange(3))
    assert found.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert distances.tolist() == [[np.inf, np.inf], [0, np.inf], [0, np.inf]]


def test_without_own_rows_a_query_finds_itself():
    vectors = np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32)
    found, distances = exact_search(vectors, vectors, 1, space="l2")
    assert found[:, 0].tolist() == list(range(50))
    assert not distances.any()


def test_a_single_vector_has_no_neighbours():
    vectors = np.ones((1, 4), np.float32)
    found, distances = exact_search(vectors, vectors, 5, space="l2", own_rows=np.array([0]))
    assert found.shape == distances.shape == (1, 0)


@pytest.mark.parametrize("space", SPACES)
def test_compiled_distances_are_the_definitions(space):
    rng = np.random.default_rng(4)
    vectors = prepared(rng.standard_normal((200, 37)).astype(np.float32), space)
    neighbours = rng.integers(0, 200, (200, 9)).astype(np.int32)
    compiled = list_distances(vectors, vectors, neighbours, space)
    defined = pair_distances(vectors[:, None, :], vectors[neighbours], space)
    np.testing.assert_array_max_ulp(compiled, defined, maxulp=1)


def test_an_empty_place_is_infinitely_far():
    vectors = np.ones((2, 3), np.float32)
    found = list_distances(vectors, vectors, np.array([[1, -1], [0, -1]], np.int32), "l2")
    assert found.tolist() == [[0.0, np.inf], [0.0, np.inf]]


def test_distances_may_be_asked_by_several_threads_at_once():
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((5_000, 32)).astype(np.float32)
    neighbours = rng.integers(0, 5_000, (5_000, 20)).astype(np.int32)
    expected = list_distances(vectors, vectors, neighbours, "l2")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(
            lambda _: list_distances(vectors, vectors, neighbours, "l2"), range(8)
        ):
            np.testing.assert_array_equal(found, expected)
