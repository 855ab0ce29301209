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
from index_build.selfjoin.gather import (
    exact_squared,
    gather_exact,
    gather_passing,
    no_bounds,
)
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    ROWS,
    exchange,
    fetch,
)
from index_build.selfjoin.points import Points
from index_build.selfjoin.rounded import (
    OUTSIDE,
    Rounded,
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
from index_build.selfjoin.select import PADDING, keep_smallest, kth_bits, replace_largest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

LOCKS = 4096
FETCHED = 4
"""Lists that are fetched ahead of the one that is merged into."""
FEW = 12
"""Up to so many new pairs are put into a list one by one."""


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
    return unbegun_lists(points, squared)


def unbegun_lists(points: Int32s, squared: Float32s) -> NearLists:
    """Lists in the given arrays [u, k], for a join that begins them: nothing is in them yet."""
    limits = np.full(len(points), np.inf, np.float32)
    return NearLists(points, squared, limits, np.zeros(LOCKS, np.int32))


def buffer_places(k: int) -> int:
    """New pairs that a list collects before they are merged into it."""
    return max(64, k // 2)


def join_residents(points: Points, cells: Cells, lists: NearLists, cell: int) -> None:
    """First phase for one cell: begins the lists of its residents."""
    members = cells.residents[cell]
    if not len(members):
        return
    d = points.vectors.shape[1]
    columns = room_for_columns(len(members), d)
    _residents(
        points.vectors, points.rows[members], members,
        cells.centres[cell], points.scale,
        room_for_rows(ROWS, d), columns, whole_aligned(ROWS * len(columns.norms)),
        lists.points, lists.squared, lists.limits,
    )  # fmt: skip


def join_visitors(points: Points, cells: Cells, lists: NearLists, cell: int) -> None:
    """Second phase for one cell."""
    members, visitors = cells.residents[cell], cells.visitors[cell]
    if not len(members) or not len(visitors):
        return
    d, places = points.vectors.shape[1], buffer_places(lists.k)
    columns = room_for_columns(len(members), d)
    _visitors(
        points.vectors, points.rows[members], members,
        points.rows[visitors], visitors, cells.centres[cell], points.scale,
        room_for_rows(ROWS, d), columns, whole_aligned(ROWS * len(columns.norms)),
        cells.first + cell, cells.home, cells.visited.starts, cells.visited.values, places,
        lists.points, lists.squared, lists.limits, lists.locks,
    )  # fmt: skip


@kernel
def fetch_lists(
    points: Int32s, first: int, stop: int, out_points: Int32s, out_squared: Float32s
) -> None:
    """Have the lists of points[first:stop] on their way while something is computed."""
    k = out_points.shape[1]
    for i in range(first, min(stop, len(points))):
        fetch(out_points, points[i] * k, (points[i] + 1) * k)
        fetch(out_squared, points[i] * k, (points[i] + 1) * k)


@kernel
def fetch_vectors(vectors: Float32s, rows: Int32s, first: int, stop: int) -> None:
    """Have vectors[rows[first:stop]] on their way."""
    d = vectors.shape[1]
    for i in range(first, min(stop, len(rows))):
        fetch(vectors, rows[i] * d, (rows[i] + 1) * d)


@kernel
def _residents(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, members: Int32s, centre: Float32s, scale: np.float32,
    queries: Rounded, columns: Rounded, lines: Int32s,
    out_points: Int32s, out_squared: Float32s, limits: Float32s,
) -> None:  # fmt: skip
    size, k, width = len(members), out_points.shape[1], len(columns.norms)
    kept, unit = min(k, size - 1), squared_unit(scale)
    for member in members:
        out_points[member, kept:], out_squared[member, kept:] = EMPTY, np.inf
    near_squared = np.empty(size + MASK_LANES, np.float32)
    near_points = np.empty(size, np.int32)
    candidates, nothing = np.empty(width, np.int32), no_bounds(width)
    steps = steps_per_unit(squared_reach(vectors, rows, centre, scale))
    slack = round_columns(vectors, rows, 0, size, centre, scale, steps, columns)
    for first in range(0, size if kept else 0, ROWS):
        count = min(ROWS, size - first)
        round_rows(vectors, rows, first, count, centre, scale, steps, queries, 0)
        fetch_lists(members, first, first + ROWS, out_points, out_squared)
        for c in range(0, width, COLUMNS):
            whole_tile(queries, 0, columns, c, lines)
        for r in range(count):
            at, member = r * width, members[first + r]
            lines[at + first + r] = PADDING
            lines[at + size : at + width] = PADDING
            bound = np.int32(OUTSIDE - 1)
            if kept < size - 1:
                kth = kth_bits(lines[at : at + width], width, kept)
                bound = widened(np.int32(kth), queries.errors[r] + slack)
            found = gather_exact(
                queries, r, columns, lines[at : at + width], nothing, bound, unit,
                near_squared, candidates,
            )  # fmt: skip
            for i in range(found):
                near_points[i] = members[candidates[i]]
            largest = keep_smallest(near_squared, near_points, found, kept)
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
    if count <= FEW:
        limits[point] = replace_largest(
            spare_squared, spare_points, k, new_squared, new_points, count
        )
    else:
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
def earlier_visits(
    cell: int, members: Int32s, starts: Int64s, visited: Int32s
) -> tuple[Int64s, Int32s]:
    """The visits of each member to cells that come before this one, as starts and values."""
    begins, total = np.zeros(len(members) + 1, np.int64), 0
    for j in range(len(members)):
        total += starts[members[j] + 1] - starts[members[j]]
    values, count = np.empty(total, np.int32), 0
    for j in range(len(members)):
        for i in range(starts[members[j]], starts[members[j] + 1]):
            values[count] = visited[i]
            count += visited[i] < cell
        begins[j + 1] = count
    return begins, values


@kernel
def drop_met(home: int, begins: Int64s, values: Int32s, candidates: Int32s, count: int) -> int:
    """Of the members candidates[:count], keep those that don't visit the visitor's `home`, which
    comes first. Returns how many.
    """
    kept = 0
    for i in range(count):
        j, met = candidates[i], False
        for at in range(begins[j], begins[j + 1]):
            met |= values[at] == home
        candidates[kept] = j
        kept += not met
    return kept


@kernel
def _visitors(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, members: Int32s, visitor_rows: Int32s, visitors: Int32s,
    centre: Float32s, scale: np.float32, queries: Rounded, columns: Rounded, lines: Int32s,
    cell: int, home: Int32s, starts: Int64s, visited: Int32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    size, width, k = len(members), len(columns.norms), out_points.shape[1]
    d, unit = vectors.shape[1], squared_unit(scale)
    column_bounds = no_bounds(width)
    column_limits, counts = np.empty(size, np.float32), np.zeros(size, np.int32)
    column_squared = np.empty((size, places), np.float32)
    column_points = np.empty((size, places), np.int32)
    row_squared, row_points = np.empty(places, np.float32), np.empty(places, np.int32)
    spare_squared = np.empty(k + places + MASK_LANES, np.float32)
    spare_points = np.empty(k + places, np.int32)
    candidates = np.empty(width, np.int32)
    begins, values = earlier_visits(cell, members, starts, visited)
    reach = max(
        squared_reach(vectors, rows, centre, scale),
        squared_reach(vectors, visitor_rows, centre, scale),
    )
    steps, worst = steps_per_unit(reach), worst_error(d)
    slack = round_columns(vectors, rows, 0, size, centre, scale, steps, columns)
    for j in range(size):
        column_limits[j] = limits[members[j]]
        column_bounds[j] = reaching(column_limits[j], steps, columns.errors[j] + worst)
    for first in range(0, len(visitors), ROWS):
        batch = min(ROWS, len(visitors) - first)
        round_rows(vectors, visitor_rows, first, batch, centre, scale, steps, queries, 0)
        fetch_lists(visitors, first, first + ROWS, out_points, out_squared)
        fetch_vectors(vectors, visitor_rows, first + ROWS, first + 2 * ROWS)
        for c in range(0, width, COLUMNS):
            whole_tile(queries, 0, columns, c, lines)
        for r in range(batch):
            visitor, at, found = visitors[first + r], r * width, 0
            their_home, limit = home[visitor], limits[visitor]
            bound = reaching(limit, steps, queries.errors[r] + slack)
            passed = gather_passing(lines[at : at + width], column_bounds, bound, candidates)
            if their_home < cell:
                passed = drop_met(their_home, begins, values, candidates, passed)
            for i in range(passed):
                j = candidates[i]
                squared = exact_squared(queries, r, columns, j, unit)
                # written in any case, counted if it passes: a branch can't be foreseen here
                row_squared[found], row_points[found] = squared, members[j]
                found += squared <= limit
                if found == places:
                    merge_into(
                        visitor, row_squared, row_points, found, spare_squared, spare_points,
                        out_points, out_squared, limits, locks,
                    )  # fmt: skip
                    limit, found = limits[visitor], 0
                count = counts[j]
                column_squared[j, count], column_points[j, count] = squared, visitor
                counts[j] = count + (squared <= column_limits[j])
                if counts[j] == places:
                    merge_into(
                        members[j], column_squared[j], column_points[j], places,
                        spare_squared, spare_points,
                        out_points, out_squared, limits, locks,
                    )  # fmt: skip
                    column_limits[j], counts[j] = limits[members[j]], 0
                    column_bounds[j] = reaching(column_limits[j], steps, columns.errors[j] + worst)
            if found:
                merge_into(
                    visitor, row_squared, row_points, found, spare_squared, spare_points,
                    out_points, out_squared, limits, locks,
                )  # fmt: skip
    fetch_lists(members, 0, FETCHED, out_points, out_squared)
    for j in range(size):
        fetch_lists(members, j + FETCHED, j + FETCHED + 1, out_points, out_squared)
        if counts[j]:
            merge_into(
                members[j], column_squared[j], column_points[j], counts[j],
                spare_squared, spare_points, out_points, out_squared, limits, locks,
            )  # fmt: skip
