"""Merging partial neighbour lists of the same rows into one, bounded by k.

Pure numerics; the result doesn't depend on the order in which the parts come.
"""

from collections.abc import Iterable

import numpy as np

from nearfield.distances import sort_lists
from nearfield.neighbours import EMPTY, NeighbourTable
from nearfield.space import Float32s, Int32s


def merge_parts(parts: Iterable[NeighbourTable], first: int, stop: int, k: int) -> NeighbourTable:
    """The k nearest of each row `first`..`stop`-1 out of all parts' lists for it.

    A neighbour that several parts name counts once. Memory: the range's [stop - first, k] lists
    and one part; cost O(rows k log k) per part.
    """
    neighbours = np.full((stop - first, k), EMPTY, np.int32)
    distances = np.full((stop - first, k), np.inf, np.float32)
    for part in parts:
        low, high = np.searchsorted(part.rows, (first, stop))
        places = part.rows[low:high] - first
        neighbours[places], distances[places] = merged(
            np.concatenate([neighbours[places], part.neighbours[low:high]], axis=1),
            np.concatenate([distances[places], part.distances[low:high]], axis=1),
            k,
        )
    return NeighbourTable(np.arange(first, stop, dtype=np.int32), neighbours, distances)


def merged(neighbours: Int32s, distances: Float32s, k: int) -> tuple[Int32s, Float32s]:
    """Lists [m, c] -> [m, k]: repeats removed, sorted by (distance, neighbour), the best k kept."""
    order = np.lexsort((distances, neighbours), axis=1)
    neighbours = np.take_along_axis(neighbours, order, 1)
    distances = np.take_along_axis(distances, order, 1)
    repeated = np.zeros(neighbours.shape, bool)
    repeated[:, 1:] = neighbours[:, 1:] == neighbours[:, :-1]
    neighbours[repeated], distances[repeated] = EMPTY, np.inf
    neighbours, distances = sort_lists(neighbours, distances)
    return neighbours[:, :k], distances[:, :k]
