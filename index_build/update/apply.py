"""The old lists and a delta as new lists, block by block; and one list of them at a time.

Pure merging: nothing is computed from vectors. Lists are as wide as the delta's, that is with their
reserve. Memory: one block.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel
from index_build.update.delta import Delta
from index_build.update.known import Known, nothing_known, within
from index_build.update.refill import keep
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

BLOCK_ROWS = 8_192
"""Whole chunks of the matrix file. Larger blocks would be fresh memory, dearer than merging."""

Block = tuple[int, Int32s, Float32s]


def merged_blocks(known: Known, delta: Delta) -> Iterator[Block]:
    """(first row, neighbours, distances [m, columns + r]) of all rows afterwards, without gaps.

    Places that nothing is known for, and removed rows, have -1 and infinity.
    """
    n, away = int(delta.facts["n"]), delta.away
    for first in range(0, n, BLOCK_ROWS):
        rows = slice(first, min(n, first + BLOCK_ROWS))
        yield first, *_merged(known, rows, delta, away)


def lists_at(known: Known, delta: Delta, rows: Int32s) -> tuple[Int32s, Float32s]:
    """The lists [m, columns] of some rows (ascending) afterwards, without their reserve."""
    columns, away = int(delta.facts["columns"]), delta.away
    near, far = nothing_known(len(rows), columns)
    for place, row in enumerate(rows.tolist()):
        one, one_far = _merged(known, slice(row, row + 1), delta, away)
        near[place], far[place] = one[0, :columns], one_far[0, :columns]
    return near, far


def _merged(
    known: Known, rows: slice, delta: Delta, away: NDArray[np.bool_]
) -> tuple[Int32s, Float32s]:
    first, stop = rows.start, rows.stop
    near, far = nothing_known(stop - first, delta.neighbours.shape[1])
    if first < len(known):
        old, old_far = known.lists(slice(first, min(stop, len(known))))
        # no list has more members than there are recordings left, and they come first
        width = min(old.shape[1], near.shape[1])
        near[: len(old), :width], far[: len(old), :width] = old[:, :width], old_far[:, :width]
        low, high = within(delta.lost, first, stop)
        lost = delta.lost[low:high] - np.int32(first)
        near[lost], far[lost] = _left(old, old_far, lost, away, near.shape[1])
    entries = delta.entries
    low, high = within(entries.rows, first, stop)
    part = slice(low, high)
    _enter(
        np.asarray(entries.rows[part]) - np.int32(first),
        np.asarray(entries.neighbours[part]),
        np.asarray(entries.distances[part]),
        near,
        far,
    )
    low, high = within(delta.listed, first, stop)
    inside = delta.listed[low:high] - first
    near[inside], far[inside] = delta.neighbours[low:high], delta.distances[low:high]
    low, high = within(delta.removed, first, stop)
    inside = delta.removed[low:high] - first
    near[inside], far[inside] = EMPTY, np.inf
    return near, far


def _left(
    old: Int32s, old_far: Float32s, rows: Int32s, away: NDArray[np.bool_], width: int
) -> tuple[Int32s, Float32s]:
    near, far = nothing_known(len(rows), width)
    keep(old, old_far, rows, away, near, far)
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
