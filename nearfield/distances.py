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
ALONE = 1 << 18
"""Products that one thread does before others have woken up; threads of several libraries that wait
for work on the same cores keep each other from it for milliseconds."""
_REASSOCIATE = {"reassoc", "contract"}
"""Lets the compiler add in lanes; nothing else about float arithmetic is relaxed."""


def list_distances(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, space: SpaceName
) -> Float32s:
    """Distances float32 [m, k] from queries [m, d] to vectors[neighbours] (int32 [m, k]).

    Both sides prepared (`nearfield.space.prepared`); sums run in float64, differences before
    squares, so equal vectors have distance exactly 0. Negative neighbours (empty places) get
    infinity. Runs on numba's current number of threads; little work on the caller's alone, and then
    several callers at once. Cost O(m k d).
    """
    distances = np.empty(neighbours.shape, dtype=np.float32)
    given = (queries, vectors, neighbours, distances, 0.5 if space == "cosine" else 0.0)
    if neighbours.size * queries.shape[1] <= ALONE:
        (_products_alone if space == "ip" else _squared_alone)(*given)
        return distances
    with _ONE_AT_A_TIME:
        (_products_together if space == "ip" else _squared_together)(*given)
    return distances


def sort_lists(neighbours: Int32s, distances: Float32s) -> tuple[Int32s, Float32s]:
    """Each list sorted by (distance, neighbour); shapes [m, k] as given."""
    order = np.lexsort((neighbours, distances), axis=1)
    return np.take_along_axis(neighbours, order, 1), np.take_along_axis(distances, order, 1)


@numba.njit(cache=True, fastmath=_REASSOCIATE)
def _squared_line(
    query: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for j in range(len(neighbours)):
        row = neighbours[j]
        if row < 0:
            out[j] = np.inf
            continue
        total = 0.0
        for t in range(len(query)):
            difference = np.float64(query[t]) - np.float64(vectors[row, t])
            total += difference * difference
        out[j] = total * half if half > 0 else np.sqrt(total)


@numba.njit(cache=True, fastmath=_REASSOCIATE)
def _product_line(
    query: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, _half: float
) -> None:
    for j in range(len(neighbours)):
        row = neighbours[j]
        if row < 0:
            out[j] = np.inf
            continue
        total = 0.0
        for t in range(len(query)):
            total += np.float64(query[t]) * np.float64(vectors[row, t])
        out[j] = -total


@numba.njit(parallel=True, cache=True)
def _squared_together(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for i in numba.prange(neighbours.shape[0]):
        _squared_line(queries[i], vectors, neighbours[i], out[i], half)


@numba.njit(parallel=True, cache=True)
def _products_together(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for i in numba.prange(neighbours.shape[0]):
        _product_line(queries[i], vectors, neighbours[i], out[i], half)


@numba.njit(cache=True, nogil=True)
def _squared_alone(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for i in range(neighbours.shape[0]):
        _squared_line(queries[i], vectors, neighbours[i], out[i], half)


@numba.njit(cache=True, nogil=True)
def _products_alone(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, half: float
) -> None:
    for i in range(neighbours.shape[0]):
        _product_line(queries[i], vectors, neighbours[i], out[i], half)
