"""Centres of cells laid out for comparison, and each point's nearest by a float32 tile.

Owns panels of centres and what lies near a point by them; the self-join's own cells are found more
precisely and faster by `assign`, visits are the business of `border`.
"""

from dataclasses import dataclass

import numpy as np

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
NEIGHBOURS = 16
"""The distance to so manyth centre stands for a radius where none was measured."""
MOST_PLACES = 1 << 22
"""Limits the table of distances between centres, of which blocks are made."""


@dataclass(frozen=True)
class Panel:
    """Centres laid out for the tile. radii: float32 [c], how far residents lie from their centre.

    Numbers of blocks of points agree only when they use the same centres and radii.
    """

    centres: Float32s
    radii: Float32s
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


def panel_of(centres: Float32s, points: Points, radii: Float32s | None = None) -> Panel:
    """Lay out centres float32 [c, d] for comparison with `points`.

    Without `radii` they are guessed from the distances between centres.
    """
    c, d = centres.shape
    if radii is None:
        radii = guessed_radii(centres)
    middle = centres.mean(axis=0, dtype=np.float64).astype(np.float32)
    values, norms = aligned(padded(c) * d), aligned(padded(c))
    pack_columns(
        frozen(centres), np.arange(c, dtype=np.int32), 0, c, middle, points.scale, values, norms
    )
    return Panel(centres, radii, middle, values, norms)


def guessed_radii(centres: Float32s) -> Float32s:
    """For each centre its distance to the 16th nearest other one, or to the last."""
    c = len(centres)
    if c == 1:
        return np.zeros(1, np.float32)
    wide, radii = centres.astype(np.float64), np.empty(c, np.float32)
    squares, place = (wide * wide).sum(axis=1), min(NEIGHBOURS, c - 1)
    for rows in np.array_split(np.arange(c), -(-c * c // MOST_PLACES)):
        squared = squares[rows, None] + squares - 2 * wide[rows] @ wide.T
        radii[rows] = np.sqrt(np.maximum(np.partition(squared, place, axis=1)[:, place], 0))
    return radii


def near_cells(points: Points, panel: Panel, *, ratio: float, most: int, threads: int) -> NearCells:
    """The cells of each point whose centre is at most `ratio` times as far as the nearest; at most
    `most`, the nearest ones.
    """
    most = min(most, len(panel.centres))
    found = NearCells(
        np.empty(len(points), np.int32),
        np.full((len(points), most), -1, np.int32),
        np.full((len(points), most), np.inf, np.float32),
    )

    def one(first: int) -> None:
        stop = min(first + CHUNK, len(points))
        _near(
            points.vectors, points.rows[first:stop], panel.middle, points.scale,
            panel.values, panel.norms, len(panel.centres), np.float32(min(ratio, 1e15)),
            aligned(TILES * ROWS * points.vectors.shape[1]),
            aligned(TILES * ROWS * len(panel.norms) + MASK_LANES),
            found.home[first:stop], found.cells[first:stop], found.squared[first:stop],
        )  # fmt: skip

    run_parallel(one, range(0, len(points), CHUNK), threads)
    return found


@kernel
def _near(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, middle: Float32s, scale: np.float32,
    panel: Float32s, norms: Float32s, centres: int, ratio: np.float32,
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
                squared_tile(False, queries, tile * ROWS, d, panel, c, row_norms, norms, lines)
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
            bound, count = np.sqrt(nearest) * ratio, 0
            # a hair more: rounding mustn't lose the home itself
            limit = max(bound * bound * np.float32(1.000001), nearest)
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
