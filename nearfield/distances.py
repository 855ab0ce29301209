"""Distances from rows to their listed neighbours, by the definition in `nearfield.space`, fast.

Owns the compiled kernels; every distance that nearfield stores comes from here, since libraries
differ in what they call a distance. Refuses to choose neighbours.
"""

from threading import Lock

import numba
import numpy as np

from nearfield.jit import compiled
from nearfield.space import Float32s, Int32s, SpaceName

_ONE_AT_A_TIME = Lock()
"""numba's thread pool ends the process when two threads enter it at once."""
ALONE = 1 << 18
"""Products that one thread does before others have woken up; threads of several libraries that wait
for work on the same cores keep each other from it for milliseconds."""
_L2, _COSINE, _IP = 0, 1, 2
_KINDS: dict[SpaceName, int] = {"l2": _L2, "cosine": _COSINE, "ip": _IP}
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
    given = (queries, vectors, neighbours, distances, _KINDS[space])
    if neighbours.size * queries.shape[1] <= ALONE:
        _alone(*given)
        return distances
    with _ONE_AT_A_TIME:
        _together(*given)
    return distances


def sort_lists(neighbours: Int32s, distances: Float32s) -> tuple[Int32s, Float32s]:
    """Each list sorted by (distance, neighbour); shapes [m, k] as given."""
    order = np.lexsort((neighbours, distances), axis=1)
    return np.take_along_axis(neighbours, order, 1), np.take_along_axis(distances, order, 1)


@compiled(fastmath=_REASSOCIATE)
def _distance(query: Float32s, vectors: Float32s, row: int, kind: int) -> float:
    total = 0.0
    if kind == _IP:
        for t in range(len(query)):
            total += np.float64(query[t]) * np.float64(vectors[row, t])
        return -total
    for t in range(len(query)):
        difference = np.float64(query[t]) - np.float64(vectors[row, t])
        total += difference * difference
    return total * 0.5 if kind == _COSINE else np.sqrt(total)


@compiled()
def _line(query: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, kind: int) -> None:
    for j in range(len(neighbours)):
        row = neighbours[j]
        out[j] = _distance(query, vectors, row, kind) if row >= 0 else np.inf


@compiled(parallel=True)
def _together(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, kind: int
) -> None:
    for i in numba.prange(neighbours.shape[0]):
        _line(queries[i], vectors, neighbours[i], out[i], kind)


@compiled(nogil=True)
def _alone(
    queries: Float32s, vectors: Float32s, neighbours: Int32s, out: Float32s, kind: int
) -> None:
    for i in range(neighbours.shape[0]):
        _line(queries[i], vectors, neighbours[i], out[i], kind)
