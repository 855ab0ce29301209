"""Cells grouped into shards, so that few points touch more than one shard.

Recursive bisection: cells lie on the main axis of their centres, then each is drawn towards the
cells that points visit from it (the slowest mode of a random walk along visits), and the line is
cut where the work halves. What is cut off decides how much is copied, never what is found.
Refuses to choose the number of shards.
"""

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import Cells
from nearfield.space import Float32s, Int32s

STEPS = 100
"""Of the walk. Three times as many changed the copies by less than 3 in 100 (1,258 cells)."""

Floats = NDArray[np.float64]


def grouped_cells(cells: Cells, shards: int) -> Int32s:
    """The shard of each cell, int32 [c], in 0..shards-1, of about equal work.

    cells: the partition of some of the points. Cost O(visits + c d + visits log(shards) steps).
    """
    residents, visitors = cells.residents.sizes, cells.visitors.sizes
    work = residents * (residents + visitors) + 1.0
    points = np.repeat(np.arange(len(cells.home)), cells.visited.sizes)
    return grouped(
        cells.centres, np.stack([cells.home[points], cells.visited.values]), work, shards
    )


def grouped(centres: Float32s, ends: Int32s, work: Floats, shards: int) -> Int32s:
    """The shard of each cell, of about equal `work` [c]; cells joined by edges `ends` [2, e] are
    drawn together.
    """
    group = np.zeros(len(work), np.int32)
    _bisect(np.arange(len(work)), (0, min(shards, len(work))), (centres, ends, work), group)
    return group


def _bisect(
    members: NDArray[np.int64],
    shards: tuple[int, int],
    case: tuple[Float32s, Int32s, Floats],
    group: Int32s,
) -> None:
    first, stop = shards
    if stop - first < 2:
        group[members] = first
        return
    centres, ends, work = case
    place = np.full(len(work), -1)
    place[members] = np.arange(len(members))
    inside = place[ends]
    inside = inside[:, (inside >= 0).all(axis=0)]
    line = smoothed(main_axis(centres[members]), inside)
    order = members[np.argsort(line, kind="stable")]
    left = (stop - first) // 2
    # every shard gets a cell at least
    share = np.searchsorted(np.cumsum(work[order]), work[order].sum() * left / (stop - first))
    cut = int(np.clip(share + 1, left, len(order) - (stop - first - left)))
    _bisect(np.sort(order[:cut]), (first, first + left), case, group)
    _bisect(np.sort(order[cut:]), (first + left, stop), case, group)


def main_axis(centres: Float32s) -> Floats:
    """Where each centre lies along the direction of the largest spread, float64 [c]."""
    apart = centres - centres.mean(axis=0, dtype=np.float64)
    largest = np.abs(apart).max()
    if largest == 0:
        return np.arange(len(centres), dtype=np.float64)
    apart /= largest
    return apart @ np.linalg.eigh(apart.T @ apart)[1][:, -1]


def smoothed(line: Floats, ends: Int32s) -> Floats:
    """`line` after a random walk along the edges `ends` [2, e] that forgets all but its slow part.

    An isolated cell stays where it is.
    """
    c = len(line)
    edges, counts = np.unique(ends[0].astype(np.int64) * c + ends[1], return_counts=True)
    one, other = np.divmod(edges, c)
    degree = np.bincount(one, counts, c) + np.bincount(other, counts, c)
    if not degree.any():
        return line
    for _ in range(STEPS):
        line = line - (line @ degree) / degree.sum()
        line /= np.abs(line).max() or 1.0
        moved = np.bincount(one, counts * line[other], c) + np.bincount(
            other, counts * line[one], c
        )
        line = np.where(degree > 0, (line + moved / np.maximum(degree, 1)) / 2, line)
    return line
