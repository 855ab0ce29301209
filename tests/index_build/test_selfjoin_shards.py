"""Shards joined apart and merged equal a join in one process; tiles of any shape equal numpy."""

from dataclasses import replace

import numba
import numpy as np
import pytest

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import (
    empty_lists,
    finish,
    join_shard,
    merge_lists,
    partition,
    points_of,
    shard_of,
    shard_ranges,
)
from index_build.selfjoin.join import join_cells
from index_build.selfjoin.lanes import tile_primitive
from index_build.selfjoin.nearest import panel_of
from index_build.selfjoin.train import trained_centres

N, K = 6_000, 12


@pytest.fixture(scope="module")
def case():
    points = points_of(manifold(N, 20), np.arange(N, dtype=np.int32), 0)
    panel = panel_of(trained_centres(points, 40, seed=0, threads=1), points)
    cells = partition(points, panel, ratio=1.25, most=8, threads=1)
    whole = empty_lists(N, K)
    join_cells(points, cells, whole, threads=2)
    return points, cells, whole


def finished(points, lists):
    finish(
        points, lists.points, lists.squared, [np.arange(N, dtype=np.int32)], space="l2", threads=1
    )
    return lists.points.copy(), lists.squared.copy()


@pytest.mark.parametrize("shards", [1, 2, 7, 1000])
def test_merged_shards_equal_the_whole(case, shards: int) -> None:
    points, cells, whole = case
    merged = empty_lists(N, K)
    ranges = shard_ranges(cells, shards)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(cells.centres)
    # in any order
    for first, stop in reversed(ranges):
        shard = shard_of(cells, first, stop)
        vectors = points.vectors[points.rows[shard.points]]
        partial = join_shard(vectors, shard, K, scale=points.scale, careful=False, threads=1)
        merge_lists(merged, shard.points, partial)
    expected = finished(
        points, replace(whole, points=whole.points.copy(), squared=whole.squared.copy())
    )
    for one, other in zip(expected, finished(points, merged), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cell_number_is_met_by_every_point(case) -> None:
    _points, cells, _ = case
    assert np.sort(cells.residents.values).tolist() == list(range(N))
    for cell in range(len(cells.centres)):
        assert (cells.home[cells.residents[cell]] == cell).all()
        assert not np.isin(cells.visitors[cell], cells.residents[cell]).any()
        assert all(cell in cells.visited[point] for point in cells.visitors[cell][:5])


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize(("lanes", "rows", "vectors"), [(16, 8, 2), (8, 6, 2), (4, 4, 2)])
def test_tile_of_every_register_shape_equals_numpy(
    lanes: int, rows: int, vectors: int, differences: bool
) -> None:
    tile = tile_primitive(lanes, rows, vectors, differences=differences)

    @numba.njit
    def run(a, d, b, row_norms, column_norms, out, stride):  # noqa: PLR0917
        tile(a, 0, d, b, 0, row_norms, 0, column_norms, 0, out, 0, stride)

    random, d, columns = np.random.default_rng(0), 13, lanes * vectors
    left = random.normal(size=(rows, d)).astype(np.float32)
    right = random.normal(size=(columns, d)).astype(np.float32)
    column_norms = (right**2).sum(1)
    column_norms[-1] = np.nan
    out = np.zeros((rows, columns), np.float32)
    run(
        (-2 * left).ravel(), d, right.T.copy().ravel(), (left**2).sum(1), column_norms,
        out.ravel(), columns,
    )  # fmt: skip
    truth = ((left[:, None].astype(np.float64) - right) ** 2).sum(2)
    np.testing.assert_allclose(out[:, :-1], truth[:, :-1], rtol=1e-5)
    assert np.isnan(out[:, -1]).all()
