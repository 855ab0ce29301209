"""Merging partial lists: order of parts and repeats don't matter, nothing near is lost."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build.merge import merge_parts
from nearfield.neighbours import EMPTY, NeighbourTable
from tests.index_build.brute import nearest


def part_of(vectors, rows, k):
    found, distances = nearest(vectors[rows], min(k, len(rows) - 1), "l2")
    return NeighbourTable(
        rows.astype(np.int32), rows[found].astype(np.int32), distances.astype(np.float32)
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), flip=st.booleans())
def test_parts_that_cover_all_pairs_merge_to_brute_force(seed, k, flip):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((30, 3)).astype(np.float32)
    thirds = np.array_split(rng.permutation(30), 3)
    # every two thirds together: each pair of rows meets in some part, many in several
    unions = [np.sort(np.concatenate([thirds[a], thirds[b]])) for a, b in ((0, 1), (1, 2), (0, 2))]
    parts = [part_of(vectors, rows, k) for rows in unions]

    merged = merge_parts(reversed(parts) if flip else parts, 0, 30, k)

    rows, distances = nearest(vectors, k, "l2")
    np.testing.assert_array_equal(merged.neighbours, rows)
    np.testing.assert_array_equal(merged.distances, distances)


def test_a_range_gets_only_its_own_rows():
    vectors = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    whole = part_of(vectors, np.arange(30), 5)
    merged = merge_parts([whole], 10, 20, 5)
    assert merged.rows.tolist() == list(range(10, 20))
    np.testing.assert_array_equal(merged.neighbours, whole.neighbours[10:20])


def test_the_same_pair_with_distances_one_ulp_apart_counts_once():
    near = np.float32(1.0)
    further = np.nextafter(near, np.float32(2))
    rows = np.array([0], np.int32)
    parts = [
        NeighbourTable(rows, np.array([[7, 3]], np.int32), np.array([[near, 2]], np.float32)),
        NeighbourTable(rows, np.array([[7, 4]], np.int32), np.array([[further, 3]], np.float32)),
    ]
    merged = merge_parts(parts, 0, 1, 3)
    assert merged.neighbours.tolist() == [[7, 3, 4]]


def test_places_that_no_part_fills_stay_empty():
    part = NeighbourTable(
        np.array([1], np.int32), np.array([[0]], np.int32), np.array([[0.5]], np.float32)
    )
    merged = merge_parts([part], 0, 2, 2)
    assert merged.neighbours.tolist() == [[EMPTY, EMPTY], [0, EMPTY]]
    assert np.isinf(merged.distances[merged.neighbours == EMPTY]).all()
