"""The last step: distances by the definition, and lists in the order (distance, row).

Distances are sums of squared differences in float64, rounded to float32 once; they agree with
`nearfield.space.pair_distances` to the last bit or the one before it (the order of the sum).
Owns also the end of a join that was cut into shards: what several of them found for one point.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Int64s, lists_by
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from index_build.selfjoin.lanes import MASK_LANES
from index_build.selfjoin.points import Points
from index_build.selfjoin.select import keep_smallest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

PAIRS = 1 << 18
INFINITE = 0x7F800000
"""Bits of infinity."""


@dataclass(frozen=True)
class Pairs:
    """Candidates outside of lists, pair by pair: point `points[i]` may have `neighbours[i]`.

    int32 and float32 [m]. squared: as the join compares them; distances: as they will be stored.
    """

    points: Int32s
    neighbours: Int32s
    squared: Float32s
    distances: Float32s


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


def pair_lengths(
    points: Points, left: Int32s, right: Int32s, *, space: SpaceName, threads: int
) -> Float32s:
    """Final distances float32 [m] of points left[i] and right[i]; infinity where right[i] is -1."""
    found, half = np.empty(len(left), np.float32), space == "cosine"

    def one(first: int) -> None:
        part = slice(first, first + PAIRS)
        _lengths(points.vectors, points.rows, left[part], right[part], found[part], half)

    run_parallel(one, range(0, len(left), PAIRS), threads)
    return found


def settle(
    neighbours: Int32s, squared: Float32s, distances: Float32s, chosen: Int32s, more: Pairs
) -> None:
    """Bring candidates `more` into lists [m, k], in place; the lists `chosen` become final.

    The k smallest (squared, point) stay, ordered by (distance, point). Points of `more` are
    places of lists, all of them among `chosen`; no list holds its candidate already.
    """
    every = np.arange(len(more.points), dtype=np.int32)
    found = lists_by(more.points, every, len(neighbours))
    _settle(
        chosen, found.starts, found.values, more.neighbours, more.squared, more.distances,
        neighbours, squared, distances, int(found.sizes.max(initial=0)),
    )  # fmt: skip


@summing_kernel
def squared_distance(vectors: Float32s, left: int, right: int) -> float:
    """Sum of squared differences of two rows in float64."""
    total = 0.0
    for t in range(vectors.shape[1]):
        difference = np.float64(vectors[left, t]) - np.float64(vectors[right, t])
        total += difference * difference
    return total


@kernel
def _lengths(
    vectors: Float32s, rows: Int32s, left: Int32s, right: Int32s, out: Float32s, half: bool
) -> None:
    for i in range(len(left)):
        if right[i] < 0:
            out[i] = np.inf
            continue
        total = squared_distance(vectors, rows[left[i]], rows[right[i]])
        out[i] = total / 2 if half else np.sqrt(total)


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
            neighbours[point, j] = EMPTY if bits[j] == INFINITE else ordered[j] & 0x7FFFFFFF


@kernel
def _settle(  # noqa: PLR0913, PLR0917
    chosen: Int32s, starts: Int64s, order: Int32s,
    new_points: Int32s, new_squared: Float32s, new_exact: Float32s,
    neighbours: Int32s, squared: Float32s, distances: Float32s, most: int,
) -> None:  # fmt: skip
    k = neighbours.shape[1]
    points = np.empty(k + most, np.int32)
    values = np.empty(k + most + MASK_LANES, np.float32)
    kept_points, kept_values = points.copy(), values.copy()
    exact = np.empty(k + most, np.float32)
    keys, ordered = np.empty(k, np.int64), np.empty(k, np.int64)
    for at in chosen:
        count = k + starts[at + 1] - starts[at]
        for j in range(count):
            if j < k:
                points[j], values[j] = neighbours[at, j], squared[at, j]
                exact[j] = distances[at, j]
            else:
                i = order[starts[at] + j - k]
                points[j], values[j], exact[j] = new_points[i], new_squared[i], new_exact[i]
        kept_points[:count], kept_values[:count] = points[:count], values[:count]
        largest = keep_smallest(kept_values, kept_points, count, k)
        last = np.int32(EMPTY)
        for j in range(k):
            if kept_values[j] == largest:
                last = max(last, kept_points[j])
        kept = 0
        bits = exact.view(np.int32)
        for j in range(count):
            near = values[j] < largest or (values[j] == largest and points[j] <= last)
            if near and points[j] >= 0:
                keys[kept] = (np.int64(bits[j]) << 32) | np.int64(points[j])
                kept += 1
        for j in range(kept, k):
            # empty places need distinct keys
            keys[j] = (np.int64(INFINITE) << 32) | np.int64(j)
        sort_keys(keys, ordered)
        final = distances[at].view(np.int32)
        for j in range(k):
            final[j] = ordered[j] >> 32
            neighbours[at, j] = EMPTY if final[j] == INFINITE else ordered[j] & 0x7FFFFFFF


@kernel
def sort_keys(keys: Int64s, out: Int64s) -> None:
    """Sort distinct keys into `out` by counting smaller ones: k^2 steps in vector instructions."""
    k = len(keys)
    for i in range(k):
        rank = 0
        for j in range(k):
            rank += keys[j] < keys[i]
        out[rank] = keys[i]
