"""The last step: distances by the definition, and lists in the order (distance, row).

Distances are sums of squared differences in float64, rounded to float32 once; they agree with
`nearfield.space.pair_distances` to the last bit or the one before it (the order of the sum).
"""

import numpy as np

from index_build.selfjoin.cells import Int64s
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from index_build.selfjoin.points import Points
from nearfield.space import Float32s, Int32s, SpaceName


def finish(
    points: Points, neighbours: Int32s, distances: Float32s, order: list[Int32s],
    *, space: SpaceName, threads: int,
) -> None:  # fmt: skip
    """Turn lists of points [u, k] into final ones, in place, one group of points after the other.

    `order`: groups of points that lie near each other, so that their neighbours stay in cache.
    Empty places (-1, infinity) stay at the end.
    """
    half = space == "cosine"

    def one(group: int) -> None:
        _finish(points.vectors, points.rows, order[group], neighbours, distances, half)

    run_parallel(one, range(len(order)), threads)


@summing_kernel
def squared_distance(vectors: Float32s, left: int, right: int) -> float:
    """Sum of squared differences of two rows in float64."""
    total = 0.0
    for t in range(vectors.shape[1]):
        difference = np.float64(vectors[left, t]) - np.float64(vectors[right, t])
        total += difference * difference
    return total


@kernel
def _finish(
    vectors: Float32s, rows: Int32s, group: Int32s,
    neighbours: Int32s, distances: Float32s, half: bool,
) -> None:  # fmt: skip
    k = neighbours.shape[1]
    exact = np.empty(k, np.float32)
    keys, ordered = np.empty(k, np.int64), np.empty(k, np.int64)
    for point in group:
        for j in range(k):
            other = neighbours[point, j]
            if other < 0:
                exact[j] = np.inf
                # empty places need distinct keys
                neighbours[point, j] = j
                continue
            total = squared_distance(vectors, rows[point], rows[other])
            exact[j] = total / 2 if half else np.sqrt(total)
        bits = exact.view(np.int32)
        for j in range(k):
            # distances are not negative, so their bits order like numbers
            keys[j] = (np.int64(bits[j]) << 32) | np.int64(neighbours[point, j])
        sort_keys(keys, ordered)
        for j in range(k):
            bits[j] = ordered[j] >> 32
            distances[point, j] = exact[j]
            neighbours[point, j] = -1 if bits[j] == 0x7F800000 else ordered[j] & 0x7FFFFFFF


@kernel
def sort_keys(keys: Int64s, out: Int64s) -> None:
    """Sort distinct keys into `out` by counting smaller ones: k^2 steps in vector instructions."""
    k = len(keys)
    for i in range(k):
        rank = 0
        for j in range(k):
            rank += keys[j] < keys[i]
        out[rank] = keys[i]
