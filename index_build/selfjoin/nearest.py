"""Each point's nearest cells: the home, and those that it visits.

A point visits a cell when the border between that cell and its home is near: nearer than `ratio`
times the radius of its home. That asks for a fifth to a quarter fewer distances than a ratio of
the distances to the centres (docs/adr/0005-self-join.md). Owns the search among centres; refuses
to choose the ratio. All centres are compared with all points in tiles: u x c x d multiplications.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Cells, Lists, cells_of, starts_of
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
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
    middle = points.origin(centres.mean(axis=0, dtype=np.float64).astype(np.float32))
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


def near_cells(
    points: Points, panel: Panel, *, ratio: float, most: int, threads: int, reach: float = 0.0
) -> NearCells:
    """The cells of each point whose centre is at most `ratio` times as far as the nearest, plus
    `reach` diameters of the home; at most `most`, the nearest ones.
    """
    most = min(most, len(panel.centres))
    reaches = (2 * reach * np.float64(points.scale) * panel.radii).astype(np.float32)
    found = NearCells(
        np.empty(len(points), np.int32),
        np.full((len(points), most), -1, np.int32),
        np.full((len(points), most), np.inf, np.float32),
    )

    def one(first: int) -> None:
        stop = min(first + CHUNK, len(points))
        _near(
            points.careful, points.vectors, points.rows[first:stop], panel.middle, points.scale,
            panel.values, panel.norms, reaches, np.float32(min(ratio, 1e15)),
            aligned(TILES * ROWS * points.vectors.shape[1]),
            aligned(TILES * ROWS * len(panel.norms) + MASK_LANES),
            found.home[first:stop], found.cells[first:stop], found.squared[first:stop],
        )  # fmt: skip

    run_parallel(one, range(0, len(points), CHUNK), threads)
    return found


def margins(near: NearCells, panel: Panel, points: Points) -> Float32s:
    """How near the border to each cell of `near` is, [m, most], by the radius of the home.

    The border between home h and cell c is (|x - c|^2 - |x - h|^2) / 2|c - h| away. 0 for the
    home, infinity in unused places.
    """
    out = np.empty(near.cells.shape, np.float32)
    _margins(
        frozen(panel.centres), panel.radii, points.scale, near.home, near.cells, near.squared, out
    )
    return out


def partition(points: Points, panel: Panel, *, ratio: float, most: int, threads: int) -> Cells:
    """The cells of all points by the border rule: of the `most` nearest, those with a margin of
    at most `ratio`. Any block of points gives what the whole gives for them.
    """
    home = np.empty(len(points), np.int32)
    sizes = np.empty(len(points), np.int32)
    blocks = -(-len(points) // CHUNK)
    visited = [np.empty(0, np.int32)] * blocks

    def one(number: int) -> None:
        first, stop = number * CHUNK, (number + 1) * CHUNK
        block = points.part(first, stop)
        near = near_cells(block, panel, ratio=1.0, most=most, threads=1, reach=ratio)
        kept = np.empty(near.cells.size, np.int32)
        apart = margins(near, panel, points)
        count = _within(apart, np.float32(ratio), near.home, near.cells, sizes[first:stop], kept)
        home[first:stop], visited[number] = near.home, kept[:count].copy()

    run_parallel(one, range(blocks), threads)
    values = np.concatenate(visited) if blocks else np.empty(0, np.int32)
    visited.clear()
    return cells_of(panel.centres, home, Lists(starts_of(sizes), values))


@summing_kernel
def _apart(centres: Float32s, left: int, right: int, scale: np.float32) -> np.float32:
    total = np.float32(0)
    for t in range(centres.shape[1]):
        difference = (centres[left, t] - centres[right, t]) * scale
        total += difference * difference
    return np.sqrt(total)


@kernel
def _margins(  # noqa: PLR0913, PLR0917
    centres: Float32s, radii: Float32s, scale: np.float32,
    home: Int32s, cells: Int32s, squared: Float32s, out: Float32s,
) -> None:  # fmt: skip
    for i in range(len(home)):
        own, nearest = home[i], np.float32(np.inf)
        for j in range(cells.shape[1]):
            nearest = min(nearest, squared[i, j])
        for j in range(cells.shape[1]):
            cell = cells[i, j]
            if cell < 0:
                out[i, j] = np.inf
            elif cell == own or squared[i, j] == nearest:
                out[i, j] = 0
            else:
                width = np.float32(2) * _apart(centres, own, cell, scale) * radii[own] * scale
                out[i, j] = (squared[i, j] - nearest) / width


@kernel
def _within(
    apart: Float32s, ratio: np.float32, home: Int32s, cells: Int32s, sizes: Int32s, kept: Int32s
) -> int:
    """Put the visited cells end to end into `kept`, their numbers into `sizes`."""
    count = 0
    for i in range(len(home)):
        before = count
        for j in range(cells.shape[1]):
            kept[count] = cells[i, j]
            count += apart[i, j] <= ratio and cells[i, j] != home[i]
        sizes[i] = count - before
    return count


@kernel
def _near(  # noqa: PLR0913, PLR0917
    careful: bool, vectors: Float32s, rows: Int32s, middle: Float32s, scale: np.float32,
    panel: Float32s, norms: Float32s, reaches: Float32s, ratio: np.float32,
    queries: Float32s, lines: Float32s,
    home: Int32s, cells: Int32s, squared: Float32s,
) -> None:  # fmt: skip
    d, width, most, centres = vectors.shape[1], len(norms), cells.shape[1], len(reaches)
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
            bound, count = np.sqrt(nearest) * ratio + reaches[home[row]], 0
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
