"""Compiled: visitors of a cell against its residents, and the last step of a visitor's list.

A tile gives squared distances, or, for inner products, a common lift less twice the product. What
passes a limit widened by the tile's rounding is looked at; an entry into a resident's list is then
decided by its distance in float64. Owns the kernels; refuses the order in which they are called.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.finish import INFINITE, sort_keys, squared_distance
from index_build.selfjoin.jit import kernel, summing_kernel
from index_build.selfjoin.join import merge_into
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    ROWS,
    float_of,
    lowest_bit,
    passing,
)
from index_build.selfjoin.pack import pack_columns, pack_rows, squared_tile
from index_build.selfjoin.select import keep_smallest
from index_build.update.rows import fetch_ahead, vector_of
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

L2, COSINE, IP = 0, 1, 2
KINDS = {"l2": L2, "cosine": COSINE, "ip": IP}
LAST = 0x7FFFFFFF
LEAST_ENTRIES = 1_024


@summing_kernel
def _product(vectors: Float32s, left: int, right: int) -> float:
    total = 0.0
    for t in range(vectors.shape[1]):
        total += np.float64(vectors[left, t]) * np.float64(vectors[right, t])
    return total


@kernel
def _distance(vectors: Float32s, left: int, right: int, kind: int) -> np.float32:
    """By the definition in `nearfield.space`, in float64."""
    if kind == IP:
        # plus zero: there is one zero only
        return np.float32(-_product(vectors, left, right)) + np.float32(0)
    total = squared_distance(vectors, left, right)
    return np.float32(total / 2 if kind == COSINE else np.sqrt(total))


@kernel
def _bounds(  # noqa: PLR0913, PLR0917
    careful: bool, kind: int, scale: np.float32, lift: np.float32, d: int,
    members: Int32s, limits: Float32s, norms: Float32s, out: Float32s,
) -> None:  # fmt: skip
    """Per resident the largest tile value that may be an entry; -1 where none may.

    A tile is off by at most 2 e (d + 4) (|x|^2 + |y|^2); of a pair within the limit, |x|^2 is at
    most 2 |y|^2 + 2 limit^2. Summed differences are off in proportion to themselves.
    """
    unit, square = 1.2e-7 * (d + 4), np.float64(scale) * np.float64(scale)
    for j in range(len(members)):
        limit = np.float64(limits[members[j]])
        if limit == -np.inf:
            continue
        if kind == IP:
            out[j] = np.float32(2 * lift + 2 * limit * square + 8 * unit * lift)
            continue
        squared = (limit * limit if kind == L2 else 2 * limit) * square
        doubt = 8 * unit * squared + (0.0 if careful else 6 * unit * norms[j])
        out[j] = np.float32(squared + doubt)


@kernel
def meet(  # noqa: PLR0912, PLR0913, PLR0915, PLR0917
    careful: bool, kind: int, vectors: Float32s, members: Int32s,
    visitors: Int32s, own: Int32s, offered: NDArray[np.bool_],
    centre: Float32s, scale: np.float32, lift: np.float32,
    limits: Float32s, largest: Int32s,
    panel: Float32s, norms: Float32s, tile: Float32s, lines: Float32s, places: int,
    out_points: Int32s, out_squared: Float32s, out_limits: Float32s, locks: Int32s,
) -> tuple[Int32s, Int32s, Float32s]:  # fmt: skip
    """Compare visitors with the residents `members` of one cell; offers residents to the lists of
    the visitors and returns what enters the lists of residents: rows, neighbours, distances.

    vectors: of the residents, then of the visitors. own int32: the visitors' rows. Entries are in
    no order. panel, norms, tile, lines: room to work in.
    """
    d, size, width, k = vectors.shape[1], len(members), len(norms), out_points.shape[1]
    every = np.arange(len(vectors), dtype=np.int32)
    row_norms = np.empty(ROWS, np.float32)
    room = max(places, size)
    new_squared, new_points = np.empty(room + MASK_LANES, np.float32), np.empty(room, np.int32)
    spare_squared = np.empty(k + room + MASK_LANES, np.float32)
    spare_points = np.empty(k + room, np.int32)
    rows, neighbours = np.empty(LEAST_ENTRIES, np.int32), np.empty(LEAST_ENTRIES, np.int32)
    distances, entered = np.empty(LEAST_ENTRIES, np.float32), 0
    pack_columns(vectors, every, 0, size, centre, scale, panel, norms)
    closed = np.full(width, -1, np.float32)
    bounds = closed.copy()
    _bounds(careful, kind, scale, lift, d, members, limits, norms, bounds)
    if kind == IP:
        norms[:size] = lift
    for first in range(0, len(visitors), ROWS):
        count = min(ROWS, len(visitors) - first)
        pack_rows(vectors, every, size + first, count, centre, scale, tile, row_norms)
        if kind == IP:
            row_norms[:] = lift
        for c in range(0, width, COLUMNS):
            squared_tile(careful, tile, 0, d, panel, c, row_norms, norms, lines)
        if entered + count * size > len(rows):
            longer = 2 * len(rows) + count * size
            rows, neighbours = _longer(rows, longer), _longer(neighbours, longer)
            distances = _longer(distances, longer)
        for r in range(count):
            query, at, found = visitors[first + r], r * width, 0
            limit, row = out_limits[query], own[first + r]
            open_to = bounds if offered[first + r] else closed
            for c in range(0, width, MASK_LANES):
                hits = passing(lines, at + c, open_to, c, limit)
                while hits:
                    j = c + lowest_bit(hits)
                    hits &= hits - 1
                    if members[j] == row:
                        continue
                    if lines[at + j] <= limit:
                        new_squared[found], new_points[found] = lines[at + j], members[j]
                        found += 1
                        if found >= places and limit < np.inf:
                            merge_into(
                                query, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, out_limits, locks,
                            )  # fmt: skip
                            limit, found = out_limits[query], 0
                    if lines[at + j] <= open_to[j]:
                        distance = _distance(vectors, size + first + r, j, kind)
                        last = limits[members[j]]
                        if distance < last or (distance == last and row < largest[members[j]]):
                            rows[entered], neighbours[entered] = members[j], row
                            distances[entered] = distance
                            entered += 1
            if found > k:
                keep_smallest(new_squared, new_points, found, k)
                found = k
            if found:
                merge_into(
                    query, new_squared, new_points, found, spare_squared, spare_points,
                    out_points, out_squared, out_limits, locks,
                )  # fmt: skip
    return rows[:entered], neighbours[:entered], distances[:entered]


@kernel
def _longer(values: Any, length: int) -> Any:
    out = np.empty(length, values.dtype)
    out[: len(values)] = values
    return out


@kernel
def finish_lists(  # noqa: PLR0913, PLR0917
    old: Float32s, new: Float32s, place: Int32s, kind: int,
    own: Int32s, points: Int32s, neighbours: Int32s, distances: Float32s,
) -> None:  # fmt: skip
    """The nearest of the candidates `points` [q, c] (-1: none) of the rows `own`, by (distance,
    row), into neighbours and distances [q, k], k <= c."""
    candidates, k = points.shape[1], neighbours.shape[1]
    pair = np.empty((2, old.shape[1]), np.float32)
    exact = np.empty(1, np.float32)
    bits = exact.view(np.int32)
    keys, ordered = np.empty(candidates, np.int64), np.empty(candidates, np.int64)
    for i in range(len(own)):
        vector_of(old, new, place, own[i], kind == COSINE, pair[0])
        for j in range(candidates):
            fetch_ahead(old, place, points[i], j)
            if points[i, j] < 0:
                # empty places need distinct keys
                keys[j] = (np.int64(INFINITE) << 32) | np.int64(j)
                continue
            vector_of(old, new, place, points[i, j], kind == COSINE, pair[1])
            exact[0] = _distance(pair, 0, 1, kind)
            # the bits of negative floats run backwards
            order = bits[0] if bits[0] >= 0 else np.int32(bits[0] ^ LAST)
            keys[j] = (np.int64(order) << 32) | np.int64(points[i, j])
        sort_keys(keys, ordered)
        for j in range(k):
            order = np.int32(ordered[j] >> 32)
            distances[i, j] = float_of(order if order >= 0 else np.int32(order ^ LAST))
            neighbours[i, j] = EMPTY if order == INFINITE else ordered[j] & LAST
