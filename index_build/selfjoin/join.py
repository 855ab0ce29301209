"""The join: every pair that meets in a cell, computed once, offered to both points' lists.

Two phases. `join_residents` compares a cell's residents with each other and gives each its first
list. `join_visitors` compares visitors with residents; by then every list has a k-th distance, and
only pairs below it are touched again. Lists live in two arrays [u, k] and are guarded by locks, so
cells run in any order on any number of threads: what a list ends up with is the k smallest
(squared distance, point) of all pairs offered, whatever the order.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Cells, Int64s
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    ROWS,
    exchange,
    lowest_bit,
    passing,
    prefetch,
)
from index_build.selfjoin.pack import aligned, pack_columns, pack_rows, padded, squared_tile
from index_build.selfjoin.points import Points
from index_build.selfjoin.select import keep_smallest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

LOCKS = 4096
CACHE_LINE = 16


@dataclass(frozen=True)
class NearLists:
    """The lists while they grow, [u, k], unordered, with scaled squared distances.

    limits [u] is the largest distance of each list, infinity while it has empty places.
    """

    points: Int32s
    squared: Float32s
    limits: Float32s
    locks: Int32s

    @property
    def k(self) -> int:
        """Places per list."""
        return int(self.points.shape[1])


def join_cells(points: Points, cells: Cells, lists: NearLists, *, threads: int) -> None:
    """Both phases over all cells."""
    every = range(len(cells.residents))
    run_parallel(lambda cell: join_residents(points, cells, lists, cell), every, threads)
    run_parallel(lambda cell: join_visitors(points, cells, lists, cell), every, threads)


def empty_lists(points: int, k: int) -> NearLists:
    """Lists without entries."""
    return lists_in(np.empty((points, k), np.int32), np.empty((points, k), np.float32))


def lists_in(points: Int32s, squared: Float32s) -> NearLists:
    """Lists without entries that live in the given arrays [u, k]."""
    points[:], squared[:] = EMPTY, np.inf
    limits = np.full(len(points), np.inf, np.float32)
    return NearLists(points, squared, limits, np.zeros(LOCKS, np.int32))


def buffer_places(k: int) -> int:
    """New pairs that a list collects before they are merged into it."""
    return max(64, k // 2)


def join_residents(points: Points, cells: Cells, lists: NearLists, cell: int) -> None:
    """First phase for one cell."""
    members = cells.residents[cell]
    if not len(members):
        return
    d, width = points.vectors.shape[1], padded(len(members))
    _residents(
        points.careful, points.vectors, points.rows[members], members,
        points.origin(cells.centres[cell]), points.scale,
        aligned(width * d), aligned(width), aligned(ROWS * d), aligned(ROWS * width),
        lists.points, lists.squared, lists.limits,
    )  # fmt: skip


def join_visitors(points: Points, cells: Cells, lists: NearLists, cell: int) -> None:
    """Second phase for one cell."""
    members, visitors = cells.residents[cell], cells.visitors[cell]
    if not len(members) or not len(visitors):
        return
    d, width, places = points.vectors.shape[1], padded(len(members)), buffer_places(lists.k)
    _visitors(
        points.careful, points.vectors, points.rows[members], members,
        points.rows[visitors], visitors, points.origin(cells.centres[cell]), points.scale,
        aligned(width * d), aligned(width), aligned(ROWS * d), aligned(ROWS * width),
        cells.first + cell, cells.home, cells.visited.starts, cells.visited.values, places,
        lists.points, lists.squared, lists.limits, lists.locks,
    )  # fmt: skip


@kernel
def _residents(  # noqa: PLR0913, PLR0917
    careful: bool, vectors: Float32s, rows: Int32s, members: Int32s,
    centre: Float32s, scale: np.float32,
    panel: Float32s, column_norms: Float32s, queries: Float32s, lines: Float32s,
    out_points: Int32s, out_squared: Float32s, limits: Float32s,
) -> None:  # fmt: skip
    d, size, k = vectors.shape[1], len(members), out_points.shape[1]
    width = len(column_norms)
    row_norms = np.empty(ROWS, np.float32)
    near_squared = np.empty(size + MASK_LANES, np.float32)
    near_points = np.empty(size, np.int32)
    pack_columns(vectors, rows, 0, size, centre, scale, panel, column_norms)
    for first in range(0, size, ROWS):
        count = min(ROWS, size - first)
        pack_rows(vectors, rows, first, count, centre, scale, queries, row_norms)
        for c in range(0, width, COLUMNS):
            squared_tile(careful, queries, 0, d, panel, c, row_norms, column_norms, lines)
        for r in range(count):
            own, at, member = first + r, r * width, members[first + r]
            # the last one takes the place of the point itself
            near_squared[:size] = lines[at : at + size]
            near_points[:size] = members
            near_squared[own], near_points[own] = near_squared[size - 1], near_points[size - 1]
            kept = min(k, size - 1)
            if kept == 0:
                continue
            largest = keep_smallest(near_squared, near_points, size - 1, kept)
            out_squared[member, :kept] = near_squared[:kept]
            out_points[member, :kept] = near_points[:kept]
            if kept == k:
                limits[member] = largest


@kernel
def merge_into(  # noqa: PLR0913, PLR0917
    point: int, new_squared: Float32s, new_points: Int32s, count: int,
    spare_squared: Float32s, spare_points: Int32s,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    """Put `count` new pairs into a point's list under its lock and lower its limit."""
    k, lock = out_points.shape[1], point % LOCKS
    while exchange(locks, lock, np.int32(1)) != 0:
        pass
    for i in range(k):
        spare_squared[i] = out_squared[point, i]
        spare_points[i] = out_points[point, i]
    for i in range(count):
        spare_squared[k + i] = new_squared[i]
        spare_points[k + i] = new_points[i]
    limits[point] = keep_smallest(spare_squared, spare_points, k + count, k)
    for i in range(k):
        out_squared[point, i] = spare_squared[i]
        out_points[point, i] = spare_points[i]
    exchange(locks, lock, np.int32(0))


def merge_lists(into: NearLists, at: Int32s, new: NearLists) -> None:
    """Merge lists [m] of the same or another join into lists at[m] of `into`; no pair in both."""
    k = into.k
    _merge_all(
        at, new.squared, new.points,
        np.empty(k + new.k + MASK_LANES, np.float32), np.empty(k + new.k, np.int32),
        into.points, into.squared, into.limits, into.locks,
    )  # fmt: skip


@kernel
def _merge_all(  # noqa: PLR0913, PLR0917
    at: Int32s, new_squared: Float32s, new_points: Int32s,
    spare_squared: Float32s, spare_points: Int32s,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    for i in range(len(at)):
        merge_into(
            at[i], new_squared[i], new_points[i], new_points.shape[1], spare_squared, spare_points,
            out_points, out_squared, limits, locks,
        )  # fmt: skip


@kernel
def meet_elsewhere(cell: int, home: int, resident: int, starts: Int64s, visited: Int32s) -> bool:
    """Whether a resident of `cell` visits the visitor's `home` and that home comes first."""
    if home >= cell:
        return False
    for i in range(starts[resident], starts[resident + 1]):  # noqa: SIM110  (compiled)
        if visited[i] == home:
            return True
    return False


@kernel
def fetch_ahead(
    vectors: Float32s, rows: Int32s, visitors: Int32s, first: int,
    out_points: Int32s, out_squared: Float32s,
) -> None:  # fmt: skip
    """Have the lists of this tile and the vectors of the next on their way while it is computed."""
    k, d = out_points.shape[1], vectors.shape[1]
    for i in range(first, min(first + ROWS, len(visitors))):
        for at in range(visitors[i] * k, (visitors[i] + 1) * k, CACHE_LINE):
            prefetch(out_points, at)
            prefetch(out_squared, at)
    for i in range(first + ROWS, min(first + 2 * ROWS, len(visitors))):
        for at in range(rows[i] * d, (rows[i] + 1) * d, CACHE_LINE):
            prefetch(vectors, at)


@kernel
def _visitors(  # noqa: PLR0912, PLR0913, PLR0917
    careful: bool, vectors: Float32s, rows: Int32s, members: Int32s,
    visitor_rows: Int32s, visitors: Int32s,
    centre: Float32s, scale: np.float32,
    panel: Float32s, column_norms: Float32s, queries: Float32s, lines: Float32s,
    cell: int, home: Int32s, starts: Int64s, visited: Int32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    d, size, width = vectors.shape[1], len(members), len(column_norms)
    k = out_points.shape[1]
    row_norms = np.empty(ROWS, np.float32)
    column_limits = np.full(width, -1, np.float32)
    counts = np.zeros(size, np.int32)
    column_squared = np.empty((size, places), np.float32)
    column_points = np.empty((size, places), np.int32)
    row_squared, row_points = np.empty(places, np.float32), np.empty(places, np.int32)
    spare_squared = np.empty(k + places + MASK_LANES, np.float32)
    spare_points = np.empty(k + places, np.int32)
    for j in range(size):
        column_limits[j] = limits[members[j]]
    pack_columns(vectors, rows, 0, size, centre, scale, panel, column_norms)
    for first in range(0, len(visitors), ROWS):
        count = min(ROWS, len(visitors) - first)
        pack_rows(vectors, visitor_rows, first, count, centre, scale, queries, row_norms)
        fetch_ahead(vectors, visitor_rows, visitors, first, out_points, out_squared)
        for c in range(0, width, COLUMNS):
            squared_tile(careful, queries, 0, d, panel, c, row_norms, column_norms, lines)
        for r in range(count):
            visitor, at, found = visitors[first + r], r * width, 0
            limit = limits[visitor]
            for c in range(0, width, MASK_LANES):
                hits = passing(lines, at + c, column_limits, c, limit)
                while hits:
                    j = c + lowest_bit(hits)
                    hits &= hits - 1
                    resident, squared = members[j], lines[at + j]
                    if meet_elsewhere(cell, home[visitor], resident, starts, visited):
                        continue
                    if squared <= limit:
                        row_squared[found] = squared
                        row_points[found] = resident
                        found += 1
                        if found == places:
                            merge_into(
                                visitor, row_squared, row_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, locks,
                            )  # fmt: skip
                            limit, found = limits[visitor], 0
                    if squared <= column_limits[j]:
                        column_squared[j, counts[j]] = squared
                        column_points[j, counts[j]] = visitor
                        counts[j] += 1
                        if counts[j] == places:
                            merge_into(
                                resident, column_squared[j], column_points[j], places,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, locks,
                            )  # fmt: skip
                            column_limits[j], counts[j] = limits[resident], 0
            if found:
                merge_into(
                    visitor, row_squared, row_points, found, spare_squared, spare_points,
                    out_points, out_squared, limits, locks,
                )  # fmt: skip
    for j in range(size):
        if counts[j]:
            merge_into(
                members[j], column_squared[j], column_points[j], counts[j],
                spare_squared, spare_points, out_points, out_squared, limits, locks,
            )  # fmt: skip
