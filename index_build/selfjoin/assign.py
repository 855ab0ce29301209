"""The cells nearest to each point, as exact as float64, at the price of whole numbers.

All centres are compared with all points in rounded tiles: u x c x d multiplications. What may be
nearest by them is compared exactly, so blocks of points get what the whole would. Owns distances
to centres; refuses the rule of visits (`nearest`).
"""

import numpy as np

from index_build.selfjoin.gather import gather_exact, no_bounds
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import COLUMNS, MASK_LANES, ROWS
from index_build.selfjoin.nearest import CHUNK, TILES, NearCells, Panel
from index_build.selfjoin.points import Points, frozen
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
    widened,
)
from index_build.selfjoin.select import count_up_to, keep_smallest, kth_bits
from nearfield.space import Float32s, Int32s


def assigned(
    points: Points, panel: Panel, *, most: int, threads: int, reach: float = np.inf
) -> NearCells:
    """Of each point the home and, up to `most` in all, the nearest of those cells whose centre is
    at most `reach` diameters of the home farther away than the home's.
    """
    most, d = min(most, len(panel.centres)), points.vectors.shape[1]
    reaches = (2 * min(reach, 1e9) * np.float64(points.scale) * panel.radii).astype(np.float32)
    if reach == np.inf:
        reaches[:] = np.inf
    centres, every = frozen(panel.centres), np.arange(len(panel.centres), dtype=np.int32)
    found = NearCells(
        np.empty(len(points), np.int32),
        np.full((len(points), most), -1, np.int32),
        np.full((len(points), most), np.inf, np.float32),
    )

    def one(first: int) -> None:
        stop = min(first + CHUNK, len(points))
        columns = room_for_columns(len(every), d)
        _assign(
            points.vectors, points.rows[first:stop], centres, every,
            panel.middle, points.scale, reaches,
            room_for_rows(TILES * ROWS, d), columns,
            whole_aligned(TILES * ROWS * len(columns.norms)),
            found.home[first:stop], found.cells[first:stop], found.squared[first:stop],
        )  # fmt: skip

    run_parallel(one, range(0, len(points), CHUNK), threads)
    return found


@kernel
def _assign(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, centres: Float32s, every: Int32s,
    middle: Float32s, scale: np.float32, reaches: Float32s,
    queries: Rounded, columns: Rounded, lines: Int32s,
    home: Int32s, cells: Int32s, squared: Float32s,
) -> None:  # fmt: skip
    width, most = len(columns.norms), cells.shape[1]
    near_ids, nothing, unit = np.empty(width, np.int32), no_bounds(width), squared_unit(scale)
    near_squared = np.empty(width + MASK_LANES, np.float32)
    reach = max(
        squared_reach(vectors, rows, middle, scale), squared_reach(centres, every, middle, scale)
    )
    steps = steps_per_unit(reach)
    slack = round_columns(centres, every, 0, len(every), middle, scale, steps, columns)
    for first in range(0, len(rows), TILES * ROWS):
        batch = min(TILES * ROWS, len(rows) - first)
        tiles = -(-batch // ROWS)
        for tile in range(tiles):
            at, count = tile * ROWS, min(ROWS, batch - tile * ROWS)
            round_rows(vectors, rows, first + at, count, middle, scale, steps, queries, at)
        for c in range(0, width, COLUMNS):
            for tile in range(tiles):
                whole_tile(queries, tile * ROWS, columns, c, lines)
        for r in range(batch):
            line, row, error = lines[r * width : (r + 1) * width], first + r, queries.errors[r]
            bound = widened(least_of(line), error + slack)
            nearest = np.float32(np.inf)
            count = gather_exact(
                queries, r, columns, line, nothing, bound, unit, near_squared, near_ids
            )
            for i in range(count):
                if near_squared[i] < nearest:
                    nearest, home[row] = near_squared[i], near_ids[i]
            if most == 1:
                cells[row, 0], squared[row, 0] = home[row], nearest
                continue
            within = np.sqrt(nearest) + reaches[home[row]]
            # a hair more: rounding mustn't lose the home itself
            limit = max(within * within * np.float32(1.000001), nearest)
            bound = reaching(limit, steps, error + slack)
            if count_up_to(line, width, int(bound)) > most:
                kth = np.int32(kth_bits(line, width, most))
                bound = min(bound, widened(kth, error + slack))
            found = gather_exact(
                queries, r, columns, line, nothing, bound, unit, near_squared, near_ids
            )
            count = 0
            for i in range(found):
                near_squared[count], near_ids[count] = near_squared[i], near_ids[i]
                count += near_squared[i] <= limit
            if count > most:
                keep_smallest(near_squared, near_ids, count, most)
                count = most
            cells[row, :count] = near_ids[:count]
            squared[row, :count] = near_squared[:count]


@kernel
def least_of(line: Int32s) -> np.int32:
    """The smallest number."""
    least = line[0]
    for c in range(len(line)):
        least = min(least, line[c])
    return least
