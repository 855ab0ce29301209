"""The last step: distances by the definition, and lists in the order (distance, row).

The join's squares are sums of squared differences in float64, rounded to float32 once; their roots
agree with `nearfield.space.pair_distances` to the last bit or the one before it.
Owns also the end of a join that was cut into shards: what several of them found for one point.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import Int64s, lists_by
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import MASK_LANES, float_of
from index_build.selfjoin.points import Points
from index_build.selfjoin.select import PADDING, count_up_to, keep_smallest
from index_build.selfjoin.whole_lanes import apart_squared
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

PAIRS = 1 << 18
INFINITE = 0x7F800000
"""Bits of infinity."""
LEAST, MOST = 2.0**-100, 2.0**100
"""Between these a float32 holds all digits of a scaled square; others are computed anew."""


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

    `order`: groups of points, one after the other on each thread. Empty places (-1, infinity) stay
    at the end.
    """
    half = space == "cosine"

    def one(group: int) -> None:
        _finish(
            points.vectors, points.rows, points.scale, order[group], neighbours, distances, half
        )

    run_parallel(one, range(len(order)), threads)


def pair_lengths(
    points: Points, left: Int32s, right: Int32s, *, space: SpaceName, threads: int
) -> Float32s:
    """Final distances float32 [m] of points left[i] and right[i]; infinity where right[i] is -1."""
    found, half = np.empty(len(left), np.float32), space == "cosine"

    def one(first: int) -> None:
        part = slice(first, first + PAIRS)
        _lengths(
            points.vectors, points.rows, points.scale, left[part], right[part], found[part], half
        )

    run_parallel(one, range(0, len(left), PAIRS), threads)
    return found


def known_lengths(
    points: Points, pairs: tuple[Int32s, Int32s], squared: Float32s,
    *, space: SpaceName, threads: int,
) -> Float32s:  # fmt: skip
    """As `pair_lengths` of pairs whose squares the join has found: vectors are hardly looked at."""
    (left, right), half = pairs, space == "cosine"
    found = np.empty(len(left), np.float32)

    def one(first: int) -> None:
        part = slice(first, first + PAIRS)
        _known(
            points.vectors, points.rows, points.scale, left[part], right[part],
            squared[part], found[part], half,
        )  # fmt: skip

    run_parallel(one, range(0, len(left), PAIRS), threads)
    return found


def follows(squared: Float32s) -> NDArray[np.bool_]:
    """Where the distance follows from the square alone, without the vectors."""
    return np.asarray((squared > LEAST) & (squared < MOST))


def lengths_from(
    squared: Float32s, others: Float32s, scale: float, *, space: SpaceName
) -> Float32s:
    """Distances of squares; `others`: those that don't follow, in their order."""
    found = np.empty(squared.shape, np.float32)
    _plain(squared.ravel(), np.float32(scale), found.reshape(-1), space == "cosine")
    found[~follows(squared)] = others
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


@kernel
def squared_distance(vectors: Float32s, left: int, right: int) -> float:
    """Sum of squared differences of two rows in float64."""
    d = vectors.shape[1]
    return apart_squared(vectors, left * d, vectors, right * d, d)


@kernel
def final_distance(
    vectors: Float32s, left: int, right: int, squared: np.float32, scale: np.float32, half: bool
) -> np.float32:
    """The distance of two rows, given its scaled square as the join rounded it."""
    if LEAST < squared < MOST:
        return _following(squared, scale, half)
    total = squared_distance(vectors, left, right)
    return np.float32(total / 2 if half else np.sqrt(total))


@kernel
def _following(squared: np.float32, scale: np.float32, half: bool) -> np.float32:
    if half:
        return np.float32(np.float64(squared) / 2 / (np.float64(scale) * np.float64(scale)))
    return np.float32(np.sqrt(np.float64(squared)) / np.float64(scale))


@kernel
def _plain(squared: Float32s, scale: np.float32, out: Float32s, half: bool) -> None:
    for i in range(len(squared)):
        out[i] = _following(squared[i], scale, half)


@kernel
def _known(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, scale: np.float32, left: Int32s, right: Int32s,
    squared: Float32s, out: Float32s, half: bool,
) -> None:  # fmt: skip
    for i in range(len(left)):
        out[i] = np.inf
        if right[i] >= 0:
            out[i] = final_distance(vectors, rows[left[i]], rows[right[i]], squared[i], scale, half)


@kernel
def _lengths(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, scale: np.float32, left: Int32s, right: Int32s,
    out: Float32s, half: bool,
) -> None:  # fmt: skip
    for i in range(len(left)):
        if right[i] < 0:
            out[i] = np.inf
            continue
        one, other = rows[left[i]], rows[right[i]]
        squared = np.float32(
            squared_distance(vectors, one, other) * np.float64(scale) * np.float64(scale)
        )
        out[i] = final_distance(vectors, one, other, squared, scale, half)


@kernel
def _finish(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, scale: np.float32, group: Int32s,
    neighbours: Int32s, distances: Float32s, half: bool,
) -> None:  # fmt: skip
    k = neighbours.shape[1]
    final = np.empty(k, np.float32)
    bits = np.full(-(-k // MASK_LANES) * MASK_LANES, PADDING, np.int32)
    others = np.empty(k, np.int32)
    keys, ordered = np.empty(k, np.int64), np.empty(k, np.int64)
    for point in group:
        for j in range(k):
            others[j] = other = neighbours[point, j]
            final[j] = np.inf
            if other >= 0:
                final[j] = final_distance(
                    vectors, rows[point], rows[other], distances[point, j], scale, half
                )
        # distances are not negative, so their bits order like numbers
        bits[:k] = final.view(np.int32)
        if not put_in_order(bits, final, others, distances[point], neighbours[point]):
            for j in range(k):
                # empty places need distinct keys
                keys[j] = (np.int64(bits[j]) << 32) | np.int64(j if others[j] < 0 else others[j])
            sort_keys(keys, ordered)
            for j in range(k):
                bits[0] = ordered[j] >> 32
                distances[point, j] = float_of(bits[0])
                neighbours[point, j] = EMPTY if bits[0] == INFINITE else ordered[j] & 0x7FFFFFFF


@kernel
def put_in_order(
    bits: Int32s, values: Float32s, ids: Int32s, out_values: Float32s, out_ids: Int32s
) -> bool:
    """Sort values and ids by counting smaller ones, k^2 steps in vector instructions; False, and
    nothing of use, where two values are equal.
    """
    k, ranks = len(values), 0
    for j in range(k):
        rank = count_up_to(bits, len(bits), bits[j]) - 1
        ranks += rank
        out_values[rank], out_ids[rank] = values[j], ids[j]
    # equal ones share the rank of their last
    return ranks == k * (k - 1) // 2


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
