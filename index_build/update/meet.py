"""Compiled: visitors of a cell against its residents, and the last step of a visitor's list.

Distances are proposed by tiles in whole numbers whose error is known, inner products by tiles in
float32, as a common lift less twice the product. What passes a limit widened by the tile's error is
looked at; an entry into a resident's list is then decided by its distance in float64. Owns the
kernels; refuses the order in which they are called.
"""

import numpy as np

from index_build.selfjoin.finish import INFINITE, sort_keys, squared_distance
from index_build.selfjoin.jit import kernel
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
from index_build.selfjoin.products import inner_product
from index_build.selfjoin.rounded import (
    WIDER,
    Rounded,
    reaching,
    round_columns,
    round_rows,
    squared_reach,
    squared_unit,
    steps_per_unit,
    whole_tile,
    worst_error,
)
from index_build.selfjoin.select import PADDING, in_order, keep_smallest
from index_build.selfjoin.whole_lanes import apart_squared, passing_whole
from index_build.update.rows import fetch_ahead, vector_of
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

L2, COSINE, IP = 0, 1, 2
KINDS = {"l2": L2, "cosine": COSINE, "ip": IP}
LEAST_ENTRIES = 1_024


@kernel
def _distance(vectors: Float32s, left: int, right: int, kind: int) -> np.float32:
    """By the definition in `nearfield.space`, in float64."""
    if kind == IP:
        # plus zero: there is one zero only
        return np.float32(-inner_product(vectors, left, vectors, right)) + np.float32(0)
    total = squared_distance(vectors, left, right)
    return np.float32(total / 2 if kind == COSINE else np.sqrt(total))


@kernel
def meet(  # noqa: PLR0913, PLR0917
    cosine: bool, vectors: Float32s, members: Int32s,
    visitors: Int32s, own: Int32s, offered: bool, known: Int32s,
    centre: Float32s, scale: np.float32, limits: Float32s, largest: Int32s,
    queries: Rounded, columns: Rounded, lines: Int32s, places: int,
    out_points: Int32s, out_squared: Float32s, out_limits: Float32s, locks: Int32s,
) -> tuple[Int32s, Int32s, Float32s]:  # fmt: skip
    """Compare visitors with the residents `members` of one cell; offers residents to the lists of
    the visitors and, where they are offered, returns what enters the lists of residents: rows,
    neighbours, distances.

    vectors: of the residents, then of the visitors. own int32: the visitors' rows. known [q, any]:
    by query and ascending, rows that its list doesn't want. Entries are in no order. queries,
    columns, lines: room to work in.
    """
    d, size, width = vectors.shape[1], len(members), len(columns.norms)
    every, unit = np.arange(len(vectors), dtype=np.int32), squared_unit(scale)
    new_squared, new_points, spare_squared, spare_points = _room(
        out_points.shape[1], max(places, size)
    )
    entries, entered = _entries(LEAST_ENTRIES), 0
    kind = COSINE if cosine else L2
    steps, worst = steps_per_unit(squared_reach(vectors, every, centre, scale)), worst_error(d)
    slack = round_columns(vectors, every, 0, size, centre, scale, steps, columns)
    bounds = np.full(width, -1, np.int32)
    for j in range(size if offered else 0):
        limit = np.float64(limits[members[j]])
        if limit != -np.inf:
            # a little more, since distances are compared as they round
            reach = np.float32((2 * limit if cosine else limit * limit) * unit * WIDER)
            bounds[j] = reaching(reach, steps, columns.errors[j] + worst)
    for first in range(0, len(visitors), ROWS):
        count = min(ROWS, len(visitors) - first)
        round_rows(vectors, every, size + first, count, centre, scale, steps, queries, 0)
        for c in range(0, width, COLUMNS):
            whole_tile(queries, 0, columns, c, lines)
        entries = _with_room(entries, entered, count * size)
        for r in range(count):
            query, row, found = visitors[first + r], own[first + r], 0
            limit = out_limits[query]
            bound = reaching(limit, steps, queries.errors[r] + slack)
            for c in range(0, width, MASK_LANES):
                hits = passing_whole(lines, r * width + c, bounds, c, bound)
                while hits:
                    j = c + lowest_bit(hits)
                    hits &= hits - 1
                    if members[j] == row:
                        continue
                    value = lines[r * width + j]
                    if value <= bound and not _among(known, query, members[j]):
                        squared = np.float32(
                            unit * apart_squared(queries.exact, r * d, columns.exact, j * d, d)
                        )
                        if squared <= limit:
                            new_squared[found], new_points[found] = squared, members[j]
                            found += 1
                        if found >= places and limit < np.inf:
                            merge_into(
                                query, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, out_limits, locks,
                            )  # fmt: skip
                            limit, found = out_limits[query], 0
                            bound = reaching(limit, steps, queries.errors[r] + slack)
                    if value <= bounds[j]:
                        distance = _distance(vectors, size + first + r, j, kind)
                        entered = _enter(
                            entries, entered, members[j], row, distance, limits, largest
                        )
            _offer(
                query, found, new_squared, new_points, spare_squared, spare_points,
                out_points, out_squared, out_limits, locks,
            )  # fmt: skip
    rows, neighbours, distances = entries
    return rows[:entered], neighbours[:entered], distances[:entered]


@kernel
def _row_bounds(
    scale: np.float32, reach: float, d: int, members: Int32s, limits: Float32s, out: Float32s
) -> None:
    """Per resident the largest tile value with which a row may enter its list; -infinity where
    none may. `reach`: no product with the row is larger.
    """
    square, widened = np.float64(scale) * np.float64(scale), 2 + 8 * 1.2e-7 * (d + 4)
    for j in range(len(members)):
        out[j] = np.float32(2 * np.float64(limits[members[j]]) * square + widened * reach)


@kernel
def meet_products(  # noqa: PLR0913, PLR0917
    vectors: Float32s, members: Int32s,
    visitors: Int32s, own: Int32s, offered: bool, known: Int32s,
    scale: np.float32, longest: np.float32, limits: Float32s, largest: Int32s,
    panel: Float32s, norms: Float32s, tile: Float32s, lines: Float32s, places: int,
    out_points: Int32s, out_squared: Float32s, out_limits: Float32s, locks: Int32s,
) -> tuple[Int32s, Int32s, Float32s]:  # fmt: skip
    """As `meet`, by inner products; panel, norms, tile, lines: room to work in.

    longest: scaled length of the longest resident of any cell. Each row is lifted by what its own
    products can reach: by what the longest row's can, those of all others would be rounded alike.
    """
    d, size, width = vectors.shape[1], len(members), len(norms)
    every, nowhere = np.arange(len(vectors), dtype=np.int32), np.zeros(d, np.float32)
    row_norms = np.empty(ROWS, np.float32)
    new_squared, new_points, spare_squared, spare_points = _room(
        out_points.shape[1], max(places, size)
    )
    entries, entered = _entries(LEAST_ENTRIES), 0
    pack_columns(vectors, every, 0, size, nowhere, scale, panel, norms)
    bounds = np.full(width, -np.inf, np.float32)
    norms[:size] = 0
    for first in range(0, len(visitors), ROWS):
        count = min(ROWS, len(visitors) - first)
        pack_rows(vectors, every, size + first, count, nowhere, scale, tile, row_norms)
        for r in range(count):
            # a little more, so that rounding leaves nothing below zero
            row_norms[r] = 2 * (longest * np.sqrt(row_norms[r]) * 1.0001 + 1e-30)
        for c in range(0, width, COLUMNS):
            squared_tile(False, tile, 0, d, panel, c, row_norms, norms, lines)
        entries = _with_room(entries, entered, count * size)
        for r in range(count):
            query, at, found = visitors[first + r], r * width, 0
            limit, row = out_limits[query], own[first + r]
            if offered:
                _row_bounds(scale, row_norms[r] / 2, d, members, limits, bounds)
            for c in range(0, width, MASK_LANES):
                hits = passing(lines, at + c, bounds, c, limit)
                while hits:
                    j = c + lowest_bit(hits)
                    hits &= hits - 1
                    if members[j] == row:
                        continue
                    if lines[at + j] <= limit and not _among(known, query, members[j]):
                        new_squared[found], new_points[found] = lines[at + j], members[j]
                        found += 1
                        if found >= places and limit < np.inf:
                            merge_into(
                                query, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, out_limits, locks,
                            )  # fmt: skip
                            limit, found = out_limits[query], 0
                    if lines[at + j] <= bounds[j]:
                        distance = _distance(vectors, size + first + r, j, IP)
                        entered = _enter(
                            entries, entered, members[j], row, distance, limits, largest
                        )
            _offer(
                query, found, new_squared, new_points, spare_squared, spare_points,
                out_points, out_squared, out_limits, locks,
            )  # fmt: skip
    rows, neighbours, distances = entries
    return rows[:entered], neighbours[:entered], distances[:entered]


@kernel
def _room(k: int, most: int) -> tuple[Float32s, Int32s, Float32s, Int32s]:
    """For what one visitor finds in a cell, and for its merging into a list of k."""
    return (
        np.empty(most + MASK_LANES, np.float32), np.empty(most, np.int32),
        np.empty(k + most + MASK_LANES, np.float32), np.empty(k + most, np.int32),
    )  # fmt: skip


@kernel
def _offer(  # noqa: PLR0913, PLR0917
    query: int, found: int, new_squared: Float32s, new_points: Int32s,
    spare_squared: Float32s, spare_points: Int32s,
    out_points: Int32s, out_squared: Float32s, out_limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    """Put what a visitor found in a cell into its list."""
    k = out_points.shape[1]
    if found > k:
        keep_smallest(new_squared, new_points, found, k)
        found = k
    if found:
        merge_into(
            query, new_squared, new_points, found, spare_squared, spare_points,
            out_points, out_squared, out_limits, locks,
        )  # fmt: skip


@kernel
def _entries(length: int) -> tuple[Int32s, Int32s, Float32s]:
    return (
        np.empty(length, np.int32), np.empty(length, np.int32), np.empty(length, np.float32)
    )  # fmt: skip


@kernel
def _enter(  # noqa: PLR0913, PLR0917
    entries: tuple[Int32s, Int32s, Float32s], entered: int,
    member: int, row: int, distance: np.float32, limits: Float32s, largest: Int32s,
) -> int:  # fmt: skip
    """Note `row` where it comes before the last of the member's list; returns how many are."""
    rows, neighbours, distances = entries
    last = limits[member]
    if distance < last or (distance == last and row < largest[member]):
        rows[entered], neighbours[entered], distances[entered] = member, row, distance
        return entered + 1
    return entered


@kernel
def _with_room(
    entries: tuple[Int32s, Int32s, Float32s], entered: int, more: int
) -> tuple[Int32s, Int32s, Float32s]:
    """The entries, with room for `more`."""
    if entered + more <= len(entries[0]):
        return entries
    longer = _entries(2 * len(entries[0]) + more)
    longer[0][:entered], longer[1][:entered] = entries[0][:entered], entries[1][:entered]
    longer[2][:entered] = entries[2][:entered]
    return longer


@kernel
def _among(known: Int32s, query: int, row: int) -> bool:
    low, high = 0, known.shape[1]
    while low < high:
        middle = (low + high) >> 1
        # empty places are -1, which without a sign is the largest
        if 0 <= known[query, middle] < row:
            low = middle + 1
        else:
            high = middle
    return low < known.shape[1] and known[query, low] == row


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
            keys[j] = (np.int64(in_order(bits[0])) << 32) | np.int64(points[i, j])
        sort_keys(keys, ordered)
        for j in range(k):
            order = np.int32(ordered[j] >> 32)
            distances[i, j] = float_of(in_order(order))
            neighbours[i, j] = EMPTY if order == INFINITE else ordered[j] & PADDING
