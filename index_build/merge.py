"""Merging partial neighbour lists of the same rows into one, bounded by k.

Pure numerics; the result doesn't depend on the order in which the parts come.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nearfield.jit import compiled
from nearfield.neighbours import EMPTY, NeighbourTable
from nearfield.space import Float32s, Int32s


def merge_parts(parts: Iterable[NeighbourTable], first: int, stop: int, k: int) -> NeighbourTable:
    """The k nearest of each row `first`..`stop`-1 out of all parts' lists for it.

    A neighbour that several parts name counts once, at the smaller distance: hosts may differ in
    the last bit. Memory: the range's [stop - first, k] lists and one part; cost O(rows k) a part,
    and k^2 / 16 vector comparisons for a row that is in several.
    """
    neighbours = np.full((stop - first, k), EMPTY, np.int32)
    distances = np.full((stop - first, k), np.inf, np.float32)
    for part in parts:
        low, high = np.searchsorted(part.rows, (first, stop))
        _merge(
            part.rows[low:high] - first,
            np.ascontiguousarray(part.neighbours[low:high]),
            np.ascontiguousarray(part.distances[low:high]),
            neighbours,
            distances,
        )
    return NeighbourTable(np.arange(first, stop, dtype=np.int32), neighbours, distances)


@compiled(nogil=True)
def _merge(
    places: NDArray[np.integer],
    new_neighbours: Int32s,
    new_distances: Float32s,
    neighbours: Int32s,
    distances: Float32s,
) -> None:
    k, width = neighbours.shape[1], new_neighbours.shape[1]
    for i in range(len(places)):
        out, out_distances = neighbours[places[i]], distances[places[i]]
        old, old_distances = out.copy(), out_distances.copy()
        new, far = new_neighbours[i], new_distances[i]
        a = b = count = 0
        while count < k and ((a < k and old[a] != EMPTY) or (b < width and new[b] != EMPTY)):
            from_old = b >= width or new[b] == EMPTY
            if not from_old and a < k and old[a] != EMPTY:
                from_old = old_distances[a] < far[b] or (
                    old_distances[a] == far[b] and old[a] <= new[b]
                )
            if from_old:
                neighbour, distance = old[a], old_distances[a]
                a += 1
            else:
                neighbour, distance = new[b], far[b]
                b += 1
            seen = False
            for place in range(count):
                seen |= out[place] == neighbour
            if not seen:
                out[count], out_distances[count] = neighbour, distance
                count += 1
        out[count:], out_distances[count:] = EMPTY, np.inf
