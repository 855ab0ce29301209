"""Distances from rows to their listed neighbours, by the definition in `nearfield.space`, fast.

Owns the compiled kernels; every distance that nearfield stores comes from here, since libraries
differ in what they call a distance. Refuses to choose neighbours.
"""

from threading import Lock

import numba
import numpy as np

from nearfield.space import Float32s, Int32s, SpaceName

_ONE_AT_A_TIME = Lock()
"""numba's thread pool ends the process when two threads enter it at once."""
_REASSOCIATE = {"reassoc", "contract"}
"""Lets the compiler add in lanes; nothing else about float arithmetic is relaxed."""


def list_distances(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, space: SpaceName
) -> Float32s:
    """Distances float32 [m, k] from queries [m, d] to vectors[neighbours] (int32 [m, k]).

    Both sides prepared (`nearfield.space.prepared`); sums run in float64, differences before
    squares, so equal vectors have distance exactly 0. Negative neighbours (empty places) get
    infinity. Runs on numba's current number of threads. Cost O(m k d).
    """
    distances = np.empty(neighbours.shape, dtype=np.float32)
    kernel = _negative_products if space == "ip" else _squared_differences
    with _ONE_AT_A_TIME:
        kernel(queries, vectors, neighbours, distances, 0.5 if space == "cosine" else 0.0)
    return distances


def sort_lists(neighbours: Int32s, distances: Float32s) -> tuple[Int32s, Float32s]:
    """Each list sorted by (distance, neighbour); shapes [m, k] as given."""
    order = np.lexsort((neighbours, distances), axis=1)
    return np.take_along_axis(neighbours, order, 1), np.take_along_axis(distances, order, 1)


@numba.njit(parallel=True, cache=True, fastmath=_REASSOCIATE)
def _squared_differences(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for i in numba.prange(neighbours.shape[0]):
        for j in range(neighbours.shape[1]):
            row = neighbours[i, j]
            if row < 0:
                out[i, j] = np.inf
                continue
            total = 0.0
            for t in range(queries.shape[1]):
                difference = np.float64(queries[i, t]) - np.float64(vectors[row, t])
                total += difference * difference
            out[i, j] = total * half if half > 0 else np.sqrt(total)


@numba.njit(parallel=True, cache=True, fastmath=_REASSOCIATE)
def _negative_products(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, _half: float
) -> None:
    for i in numba.prange(neighbours.shape[0]):
        for j in range(neighbours.shape[1]):
            row = neighbours[i, j]
            if row < 0:
                out[i, j] = np.inf
                continue
            total = 0.0
            for t in range(queries.shape[1]):
                total += np.float64(queries[i, t]) * np.float64(vectors[row, t])
            out[i, j] = -total
