"""Shards joined apart and merged equal a join in one process; tiles of any shape equal numpy."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import (
    Pairs,
    Shard,
    all_members,
    cells_of,
    cut_by_shard,
    empty_lists,
    finish,
    join_shard,
    partition,
    points_of,
    resident_limits,
    settle,
)
from index_build.selfjoin.join import join_cells
from index_build.selfjoin.lanes import tile_primitive
from index_build.selfjoin.nearest import panel_of
from index_build.selfjoin.train import trained_centres

N, K = 6_000, 12


@pytest.fixture(scope="module")
def case():
    points = points_of(manifold(N, 20), np.arange(N, dtype=np.int32), 0)
    cells = cells_from(points, 40)
    return points, cells, joined(points, cells)


def joined(points, cells):
    lists = empty_lists(len(points), K)
    join_cells(points, cells, lists, threads=2)
    every = [np.arange(len(points), dtype=np.int32)]
    finish(points, lists.points, lists.squared, every, space="l2", threads=1)
    return lists.points, lists.squared


def cells_from(points, count):
    panel = panel_of(trained_centres(points, count, seed=0, threads=1), points)
    return partition(points, panel, ratio=0.3, most=8, threads=1)


def part_of(cells, first, stop):
    stop = min(stop, len(cells.home))
    chosen = np.arange(first, stop)
    return cells_of(cells.centres, cells.home[chosen], cells.visited.chosen(chosen))


def shard_from(points, cells, shard_of, number, residents, guests):
    numbers = np.flatnonzero(shard_of == number).astype(np.int32)
    both = np.concatenate([residents.points, guests.points])
    return Shard(
        numbers, cells.centres[numbers], points.vectors[points.rows[both]], residents, guests,
        guests_of=shard_of[guests.home], scale=float(points.scale),
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(shards=st.integers(1, 50), block=st.integers(500, N), seed=st.integers(0, 1000))
def test_shards_of_any_cells_equal_the_whole(case, shards: int, block: int, seed: int) -> None:
    points, cells, whole = case
    random = np.random.default_rng(seed)
    shard_of = random.integers(0, shards, len(cells.centres)).astype(np.int32)
    cut = [
        list(cut_by_shard(first, part_of(cells, first, first + block), shard_of, shards))
        for first in range(0, N, block)
    ]
    sides = [
        [all_members([piece[s][side] for piece in cut]) for side in (0, 1)] for s in range(shards)
    ]
    made = [shard_from(points, cells, shard_of, s, *sides[s]) for s in range(shards)]
    limits = np.empty(N, np.float32)
    for shard in made:
        limits[shard.residents.points] = resident_limits(shard, K, threads=1)
    neighbours, squared = np.empty((N, K), np.int32), np.empty((N, K), np.float32)
    distances, roaming, sent = squared.copy(), [], []
    for shard in made:
        guests = limits[shard.guests.points]
        found = join_shard(shard, guests, K, space="l2", threads=1)
        neighbours[found.points], distances[found.points] = found.neighbours, found.distances
        roaming.append(found.points[found.roaming])
        squared[roaming[-1]] = found.squared
        sent.append(found.sent)
    more = Pairs(
        *(np.concatenate(arrays) for arrays in zip(*(vars(s).values() for s in sent), strict=True))
    )
    settle(neighbours, squared, distances, np.concatenate(roaming), more)
    np.testing.assert_array_equal(neighbours, whole[0])
    np.testing.assert_array_equal(distances, whole[1])


def test_placeholders_of_a_guest_give_way_to_ties_at_its_limit() -> None:
    """Integers: most distances coincide with limits."""
    random = np.random.default_rng(0)
    vectors = np.unique(random.integers(0, 9, (4_000, 4)), axis=0).astype(np.float32)
    points = points_of(vectors, np.arange(len(vectors), dtype=np.int32), 0)
    cells = cells_from(points, 25)
    whole = joined(points, cells)
    shard_of = np.arange(len(cells.centres), dtype=np.int32) % 7
    sides = list(cut_by_shard(0, cells, shard_of, 7))
    made = [shard_from(points, cells, shard_of, s, *sides[s]) for s in range(7)]
    limits = np.empty(len(vectors), np.float32)
    for shard in made:
        limits[shard.residents.points] = resident_limits(shard, K, threads=1)
    for shard in made:
        found = join_shard(shard, limits[shard.guests.points], K, space="l2", threads=2)
        staying = np.setdiff1d(np.arange(len(found.points)), found.roaming)
        rows = found.points[staying]
        np.testing.assert_array_equal(found.neighbours[staying], whole[0][rows])
        assert (found.sent.squared <= limits[found.sent.points]).all()
        assert np.isin(found.sent.neighbours, found.points).all()


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
