"""k-means: means of the points nearest to each centre, again and again.

Owns passes over points, all of them or region by region; refuses to choose how many centres and
where they begin (`train`). Sums run in float64 in the order of the points, so nothing depends on
the number of threads.
"""

from collections.abc import Sequence

import numpy as np

from index_build.selfjoin.assign import assigned
from index_build.selfjoin.cells import Int64s, Lists, lists_by
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.nearest import NearCells, panel_of
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s

PASSES = 3
REACH = 8
"""Centres that a region's points are compared with, in square roots of the number of centres."""
CELLS = 64
"""Centres whose means a thread takes at a time."""


def clustered(
    parts: Sequence[Points], counts: Sequence[int], random: np.random.Generator, threads: int
) -> list[Float32s]:
    """For each part its k-means centres, so many (fewer where some stay empty), begun at some of
    its points.
    """
    begun = [_some(part, count, random) for part, count in zip(parts, counts, strict=True)]
    found = list(begun)
    # one thread a part, where there are enough of them
    inner = threads if len(parts) < threads else 1

    def one(i: int) -> None:
        for _ in range(PASSES):
            home = nearest_cells(parts[i], found[i], inner).home
            found[i] = _means(parts[i], home, len(found[i]), inner)

    run_parallel(one, range(len(parts)), threads)
    return found


def polished(
    points: Points, regions: Lists, middles: Float32s, centres: Float32s,
    *, passes: int, threads: int,
) -> Float32s:  # fmt: skip
    """Centres after more passes over all points, which cross the borders of regions.

    regions: the points of each region, whose middle is middles float32 [r, d]. A region's points
    are compared with the 8 sqrt(c) centres nearest to its middle. Cost O(passes m sqrt(c) d).
    """
    own = Points(frozen(middles), np.arange(len(middles), dtype=np.int32), points.scale)
    home = np.empty(len(points), np.int32)
    for _ in range(passes):
        most = min(len(centres), round(REACH * len(centres) ** 0.5))
        near = nearest_cells(own, centres, threads, most).cells

        def one(i: int, centres: Float32s = centres, near: Int32s = near) -> None:
            members = regions[i]
            if len(members):
                found = nearest_cells(points.chosen(members), centres[near[i]], 1).home
                home[members] = near[i][found]

        run_parallel(one, range(len(regions)), threads)
        centres = _means(points, home, len(centres), threads)
    return centres


def nearest_cells(points: Points, centres: Float32s, threads: int, most: int = 1) -> NearCells:
    """The nearest centre of each point and how far it is; the nearest `most` of them."""
    panel = panel_of(centres, points, np.zeros(len(centres), np.float32))
    return assigned(points, panel, most=most, threads=threads)


def _some(points: Points, count: int, random: np.random.Generator) -> Float32s:
    chosen = np.sort(random.choice(len(points), min(count, len(points)), replace=False))
    return points.vectors[points.rows[chosen]]


def _means(points: Points, home: Int32s, cells: int, threads: int) -> Float32s:
    """The mean of each cell's points; cells without any are dropped."""
    of_cell = lists_by(home, points.rows, cells)
    means = np.empty((cells, points.vectors.shape[1]), np.float32)

    def one(first: int) -> None:
        part = of_cell.part(first, min(first + CELLS, cells))
        _add_up(points.vectors, part.values, part.starts, means[first : first + CELLS])

    run_parallel(one, range(0, cells, CELLS), threads)
    return means[of_cell.sizes > 0]


@kernel
def _add_up(vectors: Float32s, rows: Int32s, starts: Int64s, means: Float32s) -> None:
    total = np.empty(vectors.shape[1], np.float64)
    for cell in range(len(starts) - 1):
        total[:] = 0
        for i in range(starts[cell], starts[cell + 1]):
            for t in range(vectors.shape[1]):
                total[t] += vectors[rows[i], t]
        count = max(1, starts[cell + 1] - starts[cell])
        for t in range(vectors.shape[1]):
            means[cell, t] = total[t] / count
