"""Circles and lines: the sorted walk against brute force in float64, ties and wrap-around."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build.selfjoin import circular_neighbours, knn_matrix
from nearfield.space import Float32s
from tests.index_build.brute import nearest


def circle(turns: np.ndarray, radius: float = 1.0) -> Float32s:
    angles = 2 * np.pi * (turns % 1.0)
    return (radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def agree(vectors: Float32s, k: int) -> None:
    found = circular_neighbours(vectors, k)
    assert found is not None
    neighbours, distances = nearest(vectors, min(k, len(vectors) - 1), "l2")
    np.testing.assert_array_equal(found[1], distances)
    np.testing.assert_array_equal(found[0], neighbours)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 120),
    k=st.integers(1, 150),
    places=st.sampled_from([1, 2, 3, 12, 1_000, 10**9]),
    radius=st.sampled_from([1.0, 1.7, 1e-12, 3e12]),
    seed=st.integers(0, 1_000),
)
def test_circle_equals_brute_force(n: int, k: int, places: int, radius: float, seed: int) -> None:
    turns = np.random.default_rng(seed).integers(0, places, n) / places
    agree(circle(turns, radius), k)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 120), k=st.integers(1, 150), spread=st.sampled_from([2, 50, 10**6]),
    seed=st.integers(0, 1_000),
)  # fmt: skip
def test_line_equals_brute_force(n: int, k: int, spread: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(-spread, spread, (n, 1))
    agree((numbers * 0.37).astype(np.float32), k)


def test_many_points_within_the_rounding_of_each_other() -> None:
    random = np.random.default_rng(0)
    agree(circle(0.5 + 1e-7 * random.normal(size=700)), 40)
    agree(circle(1e-9 * random.normal(size=300)), 10)


def test_the_circle_closes() -> None:
    vectors = circle(np.arange(1_000) / 1_000)
    found = knn_matrix(vectors, 4)
    assert found.report.method == "circle"
    assert sorted(found.neighbours[0].tolist()) == [1, 2, 998, 999]


def test_twelve_keys_and_ten_thousand_recordings() -> None:
    keys = np.random.default_rng(1).integers(0, 12, 10_000)
    found = knn_matrix(circle(keys / 12), 20)
    assert found.report.method == "circle"
    for row in range(0, 10_000, 997):
        same = np.flatnonzero(keys == keys[row])
        assert found.neighbours[row].tolist() == same[same != row][:20].tolist()
    assert not found.distances.any()


def test_cosine_of_two_numbers_is_a_circle() -> None:
    vectors = np.random.default_rng(2).normal(size=(5_000, 2)).astype(np.float32)
    found = knn_matrix(vectors, 5, space="cosine")
    assert found.report.method == "circle"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.sort(1 - unit[:50].astype(np.float64) @ unit.T, axis=1)[:, 1:6]
    np.testing.assert_allclose(found.distances[:50], truth, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads: int) -> None:
    vectors = circle(np.random.default_rng(3).random(20_000))
    one, other = (knn_matrix(vectors, 8, threads=count) for count in (1, threads))
    np.testing.assert_array_equal(one.neighbours, other.neighbours)
    np.testing.assert_array_equal(one.distances, other.distances)


@pytest.mark.parametrize(
    "vectors",
    [
        np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32),
        np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32),
        np.concatenate([circle(np.arange(9) / 9), np.zeros((1, 2), np.float32)]),
    ],
)
def test_other_vectors_are_left_to_others(vectors: Float32s) -> None:
    assert circular_neighbours(vectors, 3) is None
