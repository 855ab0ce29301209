"""Each point's nearest cells: the home, and those within a distance ratio of it.

Owns the search among centres; refuses to choose the ratio. All centres are compared with all
points in tiles, so the cost is u x c x d multiplications.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Cells, Lists, cells_of, starts_of
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    NO_LIMITS,
    ROWS,
    lowest_bit,
    passing,
)
from index_build.selfjoin.pack import aligned, pack_columns, pack_rows, padded, squared_tile
from index_build.selfjoin.points import Points, frozen
from index_build.selfjoin.select import keep_smallest
from nearfield.space import Float32s, Int32s

TILES = 4
"""Row tiles that share a panel of centres while it is in the first cache."""
CHUNK = 8_192


@dataclass(frozen=True)
class Panel:
    """Centres laid out for the tile."""

    centres: Float32s
    middle: Float32s
    values: Float32s
    norms: Float32s


@dataclass(frozen=True)
class NearCells:
    """For some points: `home` int32 [m], its squared distance, and cells [m, most] by no order.

    The home is among the cells; unused places hold -1 and infinity. Squared distances are scaled.
    """

    home: Int32s
    cells: Int32s
    squared: Float32s


def panel_of(centres: Float32s, points: Points) -> Panel:
    """Lay out centres float32 [c, d] for comparison with `points`."""
    c, d = centres.shape
    middle = points.origin(centres.mean(axis=0, dtype=np.float64).astype(np.float32))
    values, norms = aligned(padded(c) * d), aligned(padded(c))
    pack_columns(
        frozen(centres), np.arange(c, dtype=np.int32), 0, c, middle, points.scale, values, norms
    )
    return Panel(centres, middle, values, norms)


def near_cells(points: Points, panel: Panel, *, ratio: float, most: int, threads: int) -> NearCells:
    """The cells of each point within `ratio` of its nearest, at most `most` (the nearest ones)."""
    most = min(most, len(panel.centres))
    found = NearCells(
        np.empty(len(points), np.int32),
        np.full((len(points), most), -1, np.int32),
        np.full((len(points), most), np.inf, np.float32),
    )

    def one(first: int) -> None:
        stop = min(first + CHUNK, len(points))
        _near(
            points.careful, points.vectors, points.rows[first:stop], panel.middle, points.scale,
            panel.values, panel.norms, len(panel.centres), np.float32(min(ratio * ratio, 1e30)),
            aligned(TILES * ROWS * points.vectors.shape[1]),
            aligned(TILES * ROWS * len(panel.norms) + MASK_LANES),
            found.home[first:stop], found.cells[first:stop], found.squared[first:stop],
        )  # fmt: skip

    run_parallel(one, range(0, len(points), CHUNK), threads)
    return found


def partition(points: Points, panel: Panel, *, ratio: float, most: int, threads: int) -> Cells:
    """The cells of all points by the ratio rule, in blocks, so that memory follows the visits."""
    homes, sizes, visited = [], [], []
    for first in range(0, len(points), 64 * CHUNK):
        block = points.part(first, first + 64 * CHUNK)
        near = near_cells(block, panel, ratio=ratio, most=most, threads=threads)
        visits = (near.cells >= 0) & (near.cells != near.home[:, None])
        homes.append(near.home)
        sizes.append(visits.sum(axis=1))
        visited.append(near.cells[visits])
    visits_of = Lists(starts_of(np.concatenate(sizes)), np.concatenate(visited))
    return cells_of(panel.centres, np.concatenate(homes), visits_of)


@kernel
def _near(  # noqa: PLR0913, PLR0917
    careful: bool, vectors: Float32s, rows: Int32s, middle: Float32s, scale: np.float32,
    panel: Float32s, norms: Float32s, centres: int, factor: np.float32,
    queries: Float32s, lines: Float32s,
    home: Int32s, cells: Int32s, squared: Float32s,
) -> None:  # fmt: skip
    d, width, most = vectors.shape[1], len(norms), cells.shape[1]
    row_norms = np.empty(TILES * ROWS, np.float32)
    bits = lines.view(np.int32)
    near_ids = np.empty(width + MASK_LANES, np.int32)
    near_squared = np.empty(width + MASK_LANES, np.float32)
    for first in range(0, len(rows), TILES * ROWS):
        batch = min(TILES * ROWS, len(rows) - first)
        tiles = -(-batch // ROWS)
        for tile in range(tiles):
            pack_rows(
                vectors, rows, first + tile * ROWS, min(ROWS, batch - tile * ROWS), middle, scale,
                queries[tile * ROWS * d :], row_norms[tile * ROWS :],
            )  # fmt: skip
        for c in range(0, width, COLUMNS):
            for tile in range(tiles):
                squared_tile(careful, queries, tile * ROWS, d, panel, c, row_norms, norms, lines)
        for r in range(batch):
            at, row = r * width, first + r
            lowest = np.int32(0x7FFFFFFF)
            for c in range(at, at + centres):
                lowest = min(lowest, bits[c])
            for c in range(centres):
                if bits[at + c] == lowest:
                    home[row] = c
                    nearest = lines[at + c]
                    break
            if most == 1:
                cells[row, 0], squared[row, 0] = home[row], nearest
                continue
            limit, count = nearest * factor, 0
            for c in range(0, width, MASK_LANES):
                hits = passing(lines, at + c, NO_LIMITS, 0, np.float32(limit))
                while hits:
                    j = c + lowest_bit(hits)
                    hits &= hits - 1
                    near_ids[count] = j
                    near_squared[count] = lines[at + j]
                    count += 1
            if count > most:
                keep_smallest(near_squared, near_ids, count, most)
                count = most
            cells[row, :count] = near_ids[:count]
            squared[row, :count] = near_squared[:count]
