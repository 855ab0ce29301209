"""The exact lists of some points, by comparing them with all points: truth, and a last resort.

Owns the sweep with the join's own distances (`rounded`); a certified exact search over all rows is
`nearfield.exact`. Refuses to decide when it is needed.
"""

import numpy as np

from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.join import (
    LOCKS,
    NearLists,
    buffer_places,
    empty_lists,
    merge_into,
)
from index_build.selfjoin.lanes import COLUMNS, MASK_LANES, ROWS, lowest_bit
from index_build.selfjoin.points import Points
from index_build.selfjoin.rounded import (
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
)
from index_build.selfjoin.whole_lanes import NOWHERE, apart_squared, passing_whole
from nearfield.space import Float32s, Int32s

BLOCK = 1_024
GROUP = 512
MIDDLE_SAMPLE = 4_096


def nearest_points(points: Points, queries: Int32s, k: int, *, threads: int) -> NearLists:
    """The k nearest other points of each query point; lists [q, k]. Cost q x u x d.

    Memory beyond the lists: 8 MB per thread (d = 1,024).
    """
    lists = empty_lists(len(queries), k)
    group = min(GROUP, -(-len(queries) // threads))
    d = points.vectors.shape[1]
    middle = _middle(points)

    def one(first: int) -> None:
        chosen = slice(first, first + group)
        columns = room_for_columns(BLOCK, d)
        _sweep(
            points.vectors, points.rows, queries[chosen], points.rows[queries[chosen]],
            middle, points.scale, room_for_rows(ROWS, d), columns,
            whole_aligned(ROWS * len(columns.norms)), buffer_places(k),
            lists.points[chosen], lists.squared[chosen], lists.limits[chosen],
        )  # fmt: skip

    run_parallel(one, range(0, len(queries), max(1, group)), threads)
    return lists


def _middle(points: Points) -> Float32s:
    some = points.rows[:: max(1, len(points) // MIDDLE_SAMPLE)]
    return points.vectors[some].mean(axis=0, dtype=np.float64).astype(np.float32)


@kernel
def _sweep(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, queries: Int32s, query_rows: Int32s,
    middle: Float32s, scale: np.float32,
    tile: Rounded, columns: Rounded, lines: Int32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s,
) -> None:  # fmt: skip
    k, width = out_points.shape[1], len(columns.norms)
    d, unit = vectors.shape[1], squared_unit(scale)
    new_squared = np.empty(places, np.float32)
    new_points = np.empty(places, np.int32)
    spare_squared = np.empty(k + places + MASK_LANES, np.float32)
    spare_points = np.empty(k + places, np.int32)
    unlocked = np.zeros(LOCKS, np.int32)
    own_reach = squared_reach(vectors, query_rows, middle, scale)
    for begin in range(0, len(rows), BLOCK):
        size = min(BLOCK, len(rows) - begin)
        block = rows[begin : begin + size]
        steps = steps_per_unit(max(own_reach, squared_reach(vectors, block, middle, scale)))
        slack = round_columns(vectors, block, 0, size, middle, scale, steps, columns)
        stop = -(-size // COLUMNS) * COLUMNS
        for first in range(0, len(queries), ROWS):
            count = min(ROWS, len(queries) - first)
            round_rows(vectors, query_rows, first, count, middle, scale, steps, tile, 0)
            for c in range(0, stop, COLUMNS):
                whole_tile(tile, 0, columns, c, lines)
            for r in range(count):
                query, at, found = first + r, r * width, 0
                error = tile.errors[r] + slack
                bound = reaching(limits[query], steps, error)
                for c in range(0, stop, MASK_LANES):
                    hits = passing_whole(lines, at + c, NOWHERE, 0, bound)
                    while hits:
                        j = c + lowest_bit(hits)
                        hits &= hits - 1
                        squared = np.float32(
                            unit * apart_squared(tile.exact, r * d, columns.exact, j * d, d)
                        )
                        if squared > limits[query] or begin + j == queries[query]:
                            continue
                        new_squared[found] = squared
                        new_points[found] = begin + j
                        found += 1
                        if found == places:
                            merge_into(
                                query, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, unlocked,
                            )  # fmt: skip
                            bound, found = reaching(limits[query], steps, error), 0
                if found:
                    merge_into(
                        query, new_squared, new_points, found, spare_squared, spare_points,
                        out_points, out_squared, limits, unlocked,
                    )  # fmt: skip
