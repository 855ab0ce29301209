"""The old matrix and a delta as one new matrix, block by block; and one list of it at a time.

Pure merging: nothing is computed from vectors. Reads the old matrix through the two arrays that it
is given (readers of HDF5 datasets do). Memory: one block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel
from index_build.update.delta import Delta
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

BLOCK_ROWS = 32_768
"""Whole chunks of the matrix file."""

Block = tuple[int, Int32s, Float32s]


def merged_blocks(neighbours: Any, distances: Any, delta: Delta) -> Iterator[Block]:
    """(first row, neighbours [m, k], distances [m, k]) of all rows afterwards, without gaps.

    neighbours, distances: the old lists [n, k], sliceable. Removed rows have -1 and infinity.
    """
    n, columns, old_n = int(delta.facts["n"]), int(delta.facts["columns"]), len(neighbours)
    for first in range(0, n, BLOCK_ROWS):
        stop = min(n, first + BLOCK_ROWS)
        near = np.full((stop - first, columns), EMPTY, np.int32)
        far = np.full(near.shape, np.inf, np.float32)
        if first < old_n:
            old = neighbours[first : min(stop, old_n)]
            near[: len(old), : old.shape[1]] = old
            far[: len(old), : old.shape[1]] = distances[first : min(stop, old_n)]
        enter(near, far, first, delta)
        yield first, near, far


def enter(near: Int32s, far: Float32s, first: int, delta: Delta) -> None:
    """Bring the old lists [m, k] of the rows from `first` on up to date, in place."""
    stop = first + len(near)
    entries = delta.entries
    low, high = np.searchsorted(entries.rows, (first, stop))
    part = slice(low, high)
    _enter(
        np.asarray(entries.rows[part]) - np.int32(first),
        np.asarray(entries.neighbours[part]),
        np.asarray(entries.distances[part]),
        near,
        far,
    )
    low, high = np.searchsorted(delta.listed, (first, stop))
    inside = delta.listed[low:high] - first
    near[inside], far[inside] = delta.neighbours[low:high], delta.distances[low:high]
    low, high = np.searchsorted(delta.removed, (first, stop))
    inside = delta.removed[low:high] - first
    near[inside], far[inside] = EMPTY, np.inf


def lists_at(
    neighbours: Any, distances: Any, delta: Delta, rows: Int32s
) -> tuple[Int32s, Float32s]:
    """The lists [m, k] of some rows (ascending) afterwards."""
    columns, old_n = int(delta.facts["columns"]), len(neighbours)
    near = np.full((len(rows), columns), EMPTY, np.int32)
    far = np.full(near.shape, np.inf, np.float32)
    for place, row in enumerate(rows):
        if row < old_n:
            own = slice(int(row), int(row) + 1)
            old = neighbours[own][0]
            near[place, : len(old)], far[place, : len(old)] = old, distances[own][0]
        enter(near[place : place + 1], far[place : place + 1], int(row), delta)
    return near, far


@kernel
def _enter(
    rows: NDArray[np.integer],
    new_neighbours: Int32s,
    new_distances: Float32s,
    neighbours: Int32s,
    distances: Float32s,
) -> None:
    k = neighbours.shape[1]
    start = 0
    while start < len(rows):
        row, stop = rows[start], start
        while stop < len(rows) and rows[stop] == row:
            stop += 1
        old, old_far = neighbours[row].copy(), distances[row].copy()
        a, b = 0, start
        for place in range(k):
            if b < stop and (
                new_distances[b] < old_far[a]
                or (new_distances[b] == old_far[a] and new_neighbours[b] < old[a])
            ):
                neighbours[row, place], distances[row, place] = new_neighbours[b], new_distances[b]
                b += 1
            else:
                neighbours[row, place], distances[row, place] = old[a], old_far[a]
                a += 1
        start = stop
