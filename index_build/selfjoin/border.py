"""Who visits which cell: those to whom the border between that cell and their home is near.

Nearer than `ratio` times the radius of their home; that asks for a fifth to a quarter fewer
distances than a ratio of the distances to the centres (docs/adr/0005-self-join.md). Owns the rule
and the partition by it; refuses to choose the ratio.
"""

import numpy as np

from index_build.selfjoin.assign import assigned
from index_build.selfjoin.cells import Cells, Lists, cells_of, starts_of
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from index_build.selfjoin.nearest import CHUNK, NearCells, Panel
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s


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
        near = assigned(block, panel, most=most, threads=1, reach=ratio)
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
