"""Distances in whole steps: the tile is exact, and a widened threshold loses no pair."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build.selfjoin.lanes import COLUMNS, ROWS
from index_build.selfjoin.points import frozen, points_of
from index_build.selfjoin.rounded import (
    OUTSIDE,
    pairs_of,
    reaching,
    room_for_columns,
    room_for_rows,
    round_columns,
    round_rows,
    squared_reach,
    squared_unit,
    steps_per_unit,
    whole_aligned,
    whole_tile,
    widened,
    worst_error,
)
from index_build.selfjoin.whole_lanes import apart_squared, whole_tile_primitive


@pytest.mark.parametrize(("lanes", "rows", "vectors"), [(16, 8, 2), (8, 6, 2), (4, 4, 2)])
def test_whole_tile_of_every_register_shape_equals_numpy(
    lanes: int, rows: int, vectors: int
) -> None:
    tile = whole_tile_primitive(lanes, rows, vectors)

    @numba.njit
    def run(a, pairs, b, row_norms, column_norms, out, stride):  # noqa: PLR0917
        tile(a, 0, pairs, b, 0, row_norms, 0, column_norms, 0, out, 0, stride)

    random, pairs, columns = np.random.default_rng(0), 6, lanes * vectors
    left = random.integers(-4_000, 4_000, (rows, 2 * pairs)).astype(np.int16)
    right = random.integers(-4_000, 4_000, (columns, 2 * pairs)).astype(np.int16)
    panel = right.view(np.int32).reshape(columns, pairs).T.copy()
    wide = left.astype(np.int64), right.astype(np.int64)
    norms = [(side**2).sum(1).astype(np.int32) for side in wide]
    out = np.zeros((rows, columns), np.int32)
    doubled = (-2 * left).astype(np.int16)
    run(doubled.view(np.int32).ravel(), pairs, panel.ravel(), *norms, out.ravel(), columns)
    truth = ((wide[0][:, None] - wide[1]) ** 2).sum(2)
    np.testing.assert_array_equal(out, truth)


@pytest.mark.parametrize("d", [1, 5, 15, 16, 17, 93, 128])
def test_squared_distance_of_any_length_is_that_of_float64(d: int) -> None:
    @numba.njit
    def run(a, b, d):
        return apart_squared(a, d, b, 2 * d, d)

    random = np.random.default_rng(d)
    left = random.normal(size=(2, d)).astype(np.float32)
    right = random.normal(size=(3, d)).astype(np.float32)
    apart = left[1].astype(np.float64) - right[2].astype(np.float64)
    assert math.isclose(run(left.ravel(), right.ravel(), d), math.fsum(apart**2), rel_tol=1e-15 * d)


@numba.njit
def exact_of(rows, r, columns, d, unit):
    out = np.empty(len(columns.exact), np.float32)
    for c in range(len(out)):
        out[c] = unit * apart_squared(rows.exact, r * d, columns.exact, c * d, d)
    return out


@settings(max_examples=25, deadline=None)
@given(
    d=st.sampled_from([1, 3, 16, 40]),
    size=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]),
    outlier=st.sampled_from([1.0, 50.0, 1e6]),
    clump=st.sampled_from([1.0, 1e-4, 1e-7]),
    seed=st.integers(0, 1000),
)
def test_no_pair_is_lost_by_rounding(
    d: int, size: float, outlier: float, clump: float, seed: int
) -> None:
    random, m = np.random.default_rng(seed), 45
    vectors = random.normal(size=(m, d))
    vectors[: m // 2] = vectors[0] + clump * vectors[: m // 2]
    vectors[-1] *= outlier
    vectors = frozen((size * vectors).astype(np.float32))
    every = np.arange(m, dtype=np.int32)
    points = points_of(vectors, every, 0)
    centre = vectors.mean(axis=0)
    steps = steps_per_unit(squared_reach(vectors, every, centre, points.scale))
    columns, rows = room_for_columns(m, d), room_for_rows(ROWS, d)
    lines = whole_aligned(ROWS * len(columns.norms)).reshape(ROWS, -1)
    slack = round_columns(vectors, every, 0, m, centre, points.scale, steps, columns)
    round_rows(vectors, every, 0, ROWS, centre, points.scale, steps, rows, 0)
    for c in range(0, lines.shape[1], COLUMNS):
        whole_tile(rows, 0, columns, c, lines.ravel())
    assert len(columns.values) == lines.shape[1] * pairs_of(d)
    assert (lines[:, m:] >= OUTSIDE).all()
    assert lines[:, :m].min() >= 0
    assert lines[:, :m].max() < OUTSIDE
    assert max(slack, rows.errors.max()) <= worst_error(d)
    for r in range(ROWS):
        exact = exact_of(rows, r, columns, d, squared_unit(points.scale))
        assert exact[r] == 0
        for c in range(m):
            assert lines[r, c] <= reaching(exact[c], steps, rows.errors[r] + columns.errors[c])
            nearer = lines[r, :m][exact <= exact[c]]
            assert nearer.max() <= widened(lines[r, c], rows.errors[r] + slack)
