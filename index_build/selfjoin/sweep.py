"""The exact lists of some points, by comparing them with all points: truth, and a last resort.

Owns the sweep in float32 with the join's own rounding; a certified exact search over all rows is
`nearfield.exact`. Refuses to decide when it is needed.
"""

from dataclasses import replace

import numpy as np

from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.join import LOCKS, NearLists, buffer_places, empty_lists, merge_into
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    NO_LIMITS,
    ROWS,
    lowest_bit,
    passing,
)
from index_build.selfjoin.pack import aligned, pack_columns, pack_rows, squared_tile
from index_build.selfjoin.points import Points
from nearfield.space import Float32s, Int32s

BLOCK = 1_024
GROUP = 512
MIDDLE_SAMPLE = 4_096


def nearest_points(
    points: Points, queries: Int32s, k: int, *, threads: int, careful: bool = True
) -> NearLists:
    """The k nearest other points of each query point; lists [q, k]. Cost q x u x d.

    Not `careful`: by products, twice as fast (see `Points`). Memory beyond the lists: 4 MB per
    thread (d = 1,024).
    """
    lists = empty_lists(len(queries), k)
    group = min(GROUP, -(-len(queries) // threads))
    d = points.vectors.shape[1]
    points = replace(points, careful=careful)
    middle = points.origin(_middle(points))

    def one(first: int) -> None:
        chosen = slice(first, first + group)
        _sweep(
            points.careful, points.vectors, points.rows,
            queries[chosen], points.rows[queries[chosen]],
            middle, points.scale, aligned(BLOCK * d), aligned(BLOCK), aligned(ROWS * d),
            aligned(ROWS * BLOCK), buffer_places(k),
            lists.points[chosen], lists.squared[chosen], lists.limits[chosen],
        )  # fmt: skip

    run_parallel(one, range(0, len(queries), max(1, group)), threads)
    return lists


def _middle(points: Points) -> Float32s:
    some = points.rows[:: max(1, len(points) // MIDDLE_SAMPLE)]
    return points.vectors[some].mean(axis=0, dtype=np.float64).astype(np.float32)


@kernel
def _sweep(  # noqa: PLR0913, PLR0917
    careful: bool, vectors: Float32s, rows: Int32s, queries: Int32s, query_rows: Int32s,
    middle: Float32s, scale: np.float32,
    panel: Float32s, column_norms: Float32s, tile: Float32s, lines: Float32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s,
) -> None:  # fmt: skip
    d, k, width = vectors.shape[1], out_points.shape[1], len(column_norms)
    row_norms = np.empty(ROWS, np.float32)
    new_squared = np.empty(places, np.float32)
    new_points = np.empty(places, np.int32)
    spare_squared = np.empty(k + places + MASK_LANES, np.float32)
    spare_points = np.empty(k + places, np.int32)
    unlocked = np.zeros(LOCKS, np.int32)
    for begin in range(0, len(rows), width):
        size = min(width, len(rows) - begin)
        pack_columns(vectors, rows, begin, size, middle, scale, panel, column_norms)
        stop = -(-size // COLUMNS) * COLUMNS
        for first in range(0, len(queries), ROWS):
            count = min(ROWS, len(queries) - first)
            pack_rows(vectors, query_rows, first, count, middle, scale, tile, row_norms)
            for c in range(0, stop, COLUMNS):
                squared_tile(careful, tile, 0, d, panel, c, row_norms, column_norms, lines)
            for r in range(count):
                query, at, found = first + r, r * width, 0
                for c in range(0, stop, MASK_LANES):
                    hits = passing(lines, at + c, NO_LIMITS, 0, limits[query])
                    while hits:
                        j = c + lowest_bit(hits)
                        hits &= hits - 1
                        if lines[at + j] > limits[query] or begin + j == queries[query]:
                            continue
                        new_squared[found] = lines[at + j]
                        new_points[found] = begin + j
                        found += 1
                        if found == places:
                            merge_into(
                                query, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, unlocked,
                            )  # fmt: skip
                            found = 0
                if found:
                    merge_into(
                        query, new_squared, new_points, found, spare_squared, spare_points,
                        out_points, out_squared, limits, unlocked,
                    )  # fmt: skip
