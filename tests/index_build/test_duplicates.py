"""Collapse and expand: the lists of distinct vectors give the exact lists of all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build.duplicates import collapse, expand
from tests.index_build.brute import nearest


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40), d=st.integers(1, 4), values=st.integers(1, 4), k=st.integers(1, 45),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_expanded_lists_are_those_of_brute_force(n, d, values, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, values, (n, d)).astype(np.float32)
    collapsed = collapse(vectors)
    distinct = vectors[collapsed.representatives]
    groups, distances = nearest(distinct, min(k, max(0, len(distinct) - 1)), "l2")

    rows = np.arange(n, dtype=np.int32)
    found, found_distances = expand(
        collapsed,
        rows,
        groups[collapsed.group_of].astype(np.int32),
        distances[collapsed.group_of].astype(np.float32),
        k,
    )

    true_rows, true_distances = nearest(vectors, min(k, n - 1), "l2")
    np.testing.assert_array_equal(found, true_rows)
    np.testing.assert_array_equal(found_distances, true_distances)


def test_groups_are_numbered_by_their_lowest_row():
    vectors = np.array([[2.0], [1.0], [2.0], [3.0], [1.0]], np.float32)
    collapsed = collapse(vectors)
    assert collapsed.representatives.tolist() == [0, 1, 3]
    assert collapsed.group_of.tolist() == [0, 1, 0, 2, 1]
    assert collapsed.members.tolist() == [0, 2, 1, 4, 3]
    assert collapsed.starts.tolist() == [0, 2, 4, 5]


def test_negative_zero_equals_zero():
    assert len(collapse(np.array([[0.0], [-0.0]], np.float32)).representatives) == 1


def test_different_vectors_with_equal_hashes_stay_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "index_build.duplicates._hashes", lambda vectors: np.zeros(len(vectors), np.uint64)
    )
    vectors = np.array([[1.0], [2.0], [1.0], [2.0]], np.float32)
    collapsed = collapse(vectors)
    assert (vectors[collapsed.representatives[collapsed.group_of]] == vectors).all()


def test_many_equal_rows_cost_little_memory():
    vectors = np.zeros((67_000, 24), np.float32)
    vectors[:10] = np.eye(10, 24)
    collapsed = collapse(vectors)
    lists = np.tile(np.arange(11, dtype=np.int32)[None], (11, 1))
    neighbours = np.array([np.delete(row, i) for i, row in enumerate(lists)], np.int32)
    distances = np.where(neighbours == 10, 1.0, np.sqrt(2)).astype(np.float32)
    distances[10] = 1.0
    order = np.argsort(distances, axis=1, kind="stable")
    neighbours = np.take_along_axis(neighbours, order, 1)
    distances = np.take_along_axis(distances, order, 1)
    rows = np.array([0, 10, 66_999], np.int32)
    groups = collapsed.group_of[rows]
    found, found_distances = expand(collapsed, rows, neighbours[groups], distances[groups], 100)
    assert found[0].tolist() == list(range(10, 110))
    assert found[1].tolist() == list(range(11, 111))
    assert found[2].tolist() == list(range(10, 110))
    assert found_distances[0].tolist() == [1.0] * 100
    assert found_distances[1].tolist() == [0.0] * 100
