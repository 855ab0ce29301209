"""The join cut into shards, the units of work on a cluster: groups of cells with their points.

A shard's task needs the vectors of the points that it touches and nothing else. It returns partial
lists; merging those of all shards gives, to the bit, the lists of a join in one process, because a
pair meets in one cell only and the k smallest (squared distance, point) of a union don't depend on
how it was cut. Refuses storage and scheduling.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Cells, Lists
from index_build.selfjoin.join import NearLists, empty_lists, join_cells
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s


@dataclass(frozen=True)
class Shard:
    """points: int32 [t], ascending: the touched points. cells: theirs, by position in `points`."""

    points: Int32s
    cells: Cells


def shard_ranges(cells: Cells, shards: int) -> list[tuple[int, int]]:
    """Cut the cells into at most `shards` runs first..stop-1 of about equal work."""
    residents = cells.residents.sizes
    work = np.cumsum(residents * (residents + cells.visitors.sizes))
    cuts = np.searchsorted(work, work[-1] * np.arange(1, shards) / shards) + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(residents)]]))
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def shard_of(cells: Cells, first: int, stop: int) -> Shard:
    """Cells first..stop-1 with the points that live in them or visit them."""
    residents, visitors = cells.residents.part(first, stop), cells.visitors.part(first, stop)
    points = np.unique(np.concatenate([residents.values, visitors.values]))
    local = Cells(
        centres=cells.centres[first:stop],
        home=cells.home[points],
        visited=cells.visited.chosen(points),
        residents=_renumbered(residents, points),
        visitors=_renumbered(visitors, points),
        first=cells.first + first,
    )
    return Shard(points, local)


def _renumbered(lists: Lists, points: Int32s) -> Lists:
    return Lists(lists.starts, np.searchsorted(points, lists.values).astype(np.int32))


def join_shard(
    vectors: Float32s, shard: Shard, k: int, *, scale: float, careful: bool, threads: int
) -> NearLists:
    """Partial lists [t, k] of the shard's points, naming points of the whole join.

    vectors: float32 [t, d], those of shard.points in that order. `scale` and `careful`: those of
    the `Points` of the whole join. Distances are squared and scaled; unused places hold -1 and
    infinity. `merge_lists` puts the lists of all shards together, `finish` makes them final.
    """
    rows = np.arange(len(shard.points), dtype=np.int32)
    points = Points(frozen(vectors), rows, np.float32(scale), careful)
    lists = empty_lists(len(points), k)
    join_cells(points, shard.cells, lists, threads=threads)
    held = lists.points >= 0
    lists.points[held] = shard.points[lists.points[held]]
    return lists
