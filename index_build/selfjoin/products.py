"""Inner products in tiles: points that ask, points that may be their neighbours, and their lists.

Nearness isn't mutual here: a long row is near to many, a short one to few. So a pair is offered to
one list, that of the point that asks. Owns the order of products and its kernels; refuses to say
who is asked (`probing.py`).
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Lists
from index_build.selfjoin.finish import sort_keys
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from index_build.selfjoin.join import NearLists, buffer_places, merge_into
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    NO_LIMITS,
    ROWS,
    float_of,
    lowest_bit,
    passing,
)
from index_build.selfjoin.nearest import CHUNK
from index_build.selfjoin.pack import aligned, pack_columns, pack_rows, padded, squared_tile
from index_build.selfjoin.points import Points, frozen
from index_build.selfjoin.select import PADDING, in_order, keep_smallest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import row_blocks

BLOCK = 1_024
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Products:
    """Who asks, and who is asked. own: int32, the target that an asker is itself, or -1 where it
    isn't among them, or where it stands for several equal rows, which are each other's neighbours.

    Both have a `scale` that brings the longest row to a length near 1; `longest` is its squared
    length then. Askers are brought to that length too, which changes no order:
    |x|^2 + longest - 2xy is smallest where xy is largest, never negative, and as exact for short
    askers as for long ones. So a pair's value depends on nothing but the pair.
    """

    targets: Points
    askers: Points
    own: Int32s
    longest: np.float32

    def join(self, targets: Int32s, askers: Int32s, lists: NearLists) -> None:
        """Offer `targets`, ascending, to the lists of `askers`; a point never to itself."""
        if len(targets) and len(askers):
            self._offer(targets, askers, askers, lists)

    def probe(
        self, hubs: Int32s, residents: Lists, askers: Lists, lists: NearLists, threads: int
    ) -> None:
        """Offer hubs to all lists, and the residents of each cell to those of its askers."""
        every = np.arange(len(self.askers), dtype=np.int32)
        blocks = np.array_split(hubs, -(-len(hubs) // BLOCK)) if len(hubs) else []

        def one(number: int) -> None:
            if number < len(blocks):
                self.join(blocks[number], every, lists)
            else:
                cell = number - len(blocks)
                self.join(residents[cell], askers[cell], lists)

        run_parallel(one, range(len(blocks) + len(residents)), threads)

    def sweep(self, askers: Int32s, lists: NearLists, threads: int) -> None:
        """Offer every target to the list i of askers[i]. Cost q x u x d."""
        at = np.arange(len(askers), dtype=np.int32)
        every = np.arange(len(self.targets), dtype=np.int32)

        def one(first: int) -> None:
            self._offer(every[first : first + BLOCK], askers, at, lists)

        run_parallel(one, range(0, len(every), BLOCK), threads)

    def lengths(self, askers: Int32s, found: Int32s) -> Float32s:
        """Distances by the definition, of askers [m] to the targets found[m, k]; infinity at -1."""
        out = np.empty(found.shape, np.float32)
        _distances(
            self.askers.vectors, self.askers.rows[askers], self.targets.vectors,
            self.targets.rows, found, out,
        )  # fmt: skip
        return out

    def finish(self, lists: NearLists, threads: int) -> None:
        """Turn the lists of all askers into final ones, in place."""

        def one(first: int) -> None:
            part = slice(first, first + CHUNK)
            found = lists.points[part]
            askers = np.arange(first, first + len(found), dtype=np.int32)
            lists.squared[part] = self.lengths(askers, found)
            sort_lists(found, lists.squared[part])

        run_parallel(one, range(0, len(lists.points), CHUNK), threads)

    def _offer(self, targets: Int32s, askers: Int32s, at: Int32s, lists: NearLists) -> None:
        d, width = self.targets.vectors.shape[1], padded(len(targets))
        _offer(
            self.targets.vectors, self.targets.rows[targets], targets,
            self.askers.vectors, self.askers.rows[askers], self.own[askers], at,
            self.targets.scale, self.longest,
            aligned(width * d), aligned(width), aligned(ROWS * d), aligned(ROWS * width),
            buffer_places(lists.k), lists.points, lists.squared, lists.limits, lists.locks,
        )  # fmt: skip


def products_of(vectors: Float32s, rows: Int32s, several: Int32s) -> Products:
    """All points ask all; `rows`: the row of each, `several`: points that stand for more than one.

    Cost O(n d).
    """
    largest = max(float(np.abs(block).max()) for block in row_blocks(vectors, BLOCK_BYTES))
    power = 0.0 if largest == 0 else -np.ceil(np.log2(largest * vectors.shape[1] ** 0.5))
    points = Points(frozen(vectors), rows, np.float32(2.0 ** np.clip(power, -126, 126)))
    # a little more than the longest, so that rounding leaves nothing below zero
    longest = np.float32(float(lengths_of(points).max()) ** 2 * (1 + 1e-5) or 1.0)
    own = np.arange(len(rows), dtype=np.int32)
    own[several] = EMPTY
    return Products(points, points, own, longest)


def lengths_of(points: Points) -> Float32s:
    """Scaled length of each point."""
    out = np.empty(len(points), np.float32)
    _lengths(points.vectors, points.rows, points.scale, out)
    return out


def sort_lists(neighbours: Int32s, distances: Float32s) -> None:
    """Bring lists [m, k] into the order (distance, row), in place; empty places stay at the end."""
    _sort(neighbours, distances)


@kernel
def _lengths(vectors: Float32s, rows: Int32s, scale: np.float32, out: Float32s) -> None:
    for i in range(len(rows)):
        total = 0.0
        for t in range(vectors.shape[1]):
            value = np.float64(vectors[rows[i], t]) * scale
            total += value * value
        out[i] = np.sqrt(total)


@kernel
def _lengthen(queries: Float32s, norms: Float32s, count: int, longest: np.float32) -> None:
    """Bring packed queries to the squared length `longest`; zero rows stay."""
    d = len(queries) // ROWS
    for r in range(count):
        if norms[r] > 0:
            factor = np.float32(np.sqrt(np.float64(longest) / norms[r]))
            for t in range(r * d, (r + 1) * d):
                queries[t] *= factor
            norms[r] = longest


@kernel
def _offer(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, targets: Int32s,
    asking: Float32s, asking_rows: Int32s, own: Int32s, lists_at: Int32s,
    scale: np.float32, longest: np.float32,
    panel: Float32s, column_norms: Float32s, tile: Float32s, lines: Float32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    d, size, width, k = vectors.shape[1], len(rows), len(column_norms), out_points.shape[1]
    room = max(places, k)
    middle, row_norms = np.zeros(d, np.float32), np.empty(ROWS, np.float32)
    new_squared = np.empty(max(room, size) + MASK_LANES, np.float32)
    new_points = np.empty(max(room, size) + 1, np.int32)
    spare_squared = np.empty(k + room + MASK_LANES, np.float32)
    spare_points = np.empty(k + room, np.int32)
    pack_columns(vectors, rows, 0, size, middle, scale, panel, column_norms)
    column_norms[:size] = longest
    for first in range(0, len(asking_rows), ROWS):
        count = min(ROWS, len(asking_rows) - first)
        pack_rows(asking, asking_rows, first, count, middle, scale, tile, row_norms)
        _lengthen(tile, row_norms, count, longest)
        for c in range(0, width, COLUMNS):
            squared_tile(False, tile, 0, d, panel, c, row_norms, column_norms, lines)
        for r in range(count):
            itself, at_list, at, found = own[first + r], lists_at[first + r], r * width, 0
            limit = limits[at_list]
            if limit == np.inf:
                for j in range(size):
                    new_squared[found], new_points[found] = lines[at + j], targets[j]
                    found += targets[j] != itself
                if found > k:
                    keep_smallest(new_squared, new_points, found, k)
                    found = k
            else:
                for c in range(0, width, MASK_LANES):
                    hits = passing(lines, at + c, NO_LIMITS, 0, limit)
                    while hits:
                        j = c + lowest_bit(hits)
                        hits &= hits - 1
                        if lines[at + j] > limit or targets[j] == itself:
                            continue
                        new_squared[found], new_points[found] = lines[at + j], targets[j]
                        found += 1
                        if found == places:
                            merge_into(
                                at_list, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, locks,
                            )  # fmt: skip
                            limit, found = limits[at_list], 0
            if found:
                merge_into(
                    at_list, new_squared, new_points, found, spare_squared, spare_points,
                    out_points, out_squared, limits, locks,
                )  # fmt: skip


@summing_kernel
def inner_product(left: Float32s, left_row: int, right: Float32s, right_row: int) -> float:
    """Of two rows, in float64."""
    total = 0.0
    for t in range(left.shape[1]):
        total += np.float64(left[left_row, t]) * np.float64(right[right_row, t])
    return total


@kernel
def _distances(
    asking: Float32s, asking_rows: Int32s, vectors: Float32s, rows: Int32s, found: Int32s,
    out: Float32s,
) -> None:  # fmt: skip
    for i in range(len(asking_rows)):
        for j in range(found.shape[1]):
            if found[i, j] < 0:
                out[i, j] = np.inf
                continue
            product = inner_product(asking, asking_rows[i], vectors, rows[found[i, j]])
            # plus zero: there is one zero only
            out[i, j] = np.float32(-product) + np.float32(0)


@kernel
def _sort(neighbours: Int32s, distances: Float32s) -> None:
    k = neighbours.shape[1]
    keys, ordered = np.empty(k, np.int64), np.empty(k, np.int64)
    for i in range(len(neighbours)):
        bits = distances[i].view(np.int32)
        for j in range(k):
            # empty places come last and need own keys
            empty = neighbours[i, j] < 0
            keys[j] = (np.int64(PADDING if empty else in_order(bits[j])) << 32) | np.int64(
                j if empty else neighbours[i, j]
            )
        sort_keys(keys, ordered)
        for j in range(k):
            order = np.int32(ordered[j] >> 32)
            if order == PADDING:
                neighbours[i, j], distances[i, j] = EMPTY, np.inf
                continue
            distances[i, j] = float_of(in_order(order))
            neighbours[i, j] = ordered[j] & PADDING
