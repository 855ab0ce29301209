"""The join by inner products: cells probed in one direction, and the longest rows by everyone.

Nearness isn't mutual here: a long row is near to many, a short one to few. So a pair isn't offered
to both lists; each point asks the cells where large products are to be expected (its direction
times the centre, plus a share of the radius), and the longest rows of all, the hubs. How many of
both is computed on a sample with known truth, as for distances. Owns the whole of space `ip`.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Lists, lists_by
from index_build.selfjoin.finish import sort_keys
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from index_build.selfjoin.join import NearLists, buffer_places, empty_lists, lists_in, merge_into
from index_build.selfjoin.lanes import (
    COLUMNS,
    MASK_LANES,
    NO_LIMITS,
    ROWS,
    float_of,
    lowest_bit,
    passing,
)
from index_build.selfjoin.nearest import CHUNK, Panel, near_cells
from index_build.selfjoin.pack import aligned, pack_columns, pack_rows, padded, squared_tile
from index_build.selfjoin.plan import EXACT_SHARE, MARGIN_ERRORS, TRUE_PLACES, cell_size, drawn
from index_build.selfjoin.points import Points, frozen, points_of
from index_build.selfjoin.request import Report, Request, sampled_recall
from index_build.selfjoin.select import keep_smallest
from index_build.selfjoin.train import Trained, nearest_of, trained
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import row_blocks

BLOCK = 1_024
MOST_PROBES = 128
HUBS = 0, 1_024, 4_096, 16_384, 65_536
RADIUS_SHARE = 0.6
"""Of a cell's radius, added to its centre's product: the least work on five kinds of data."""
LAST = 0x7FFFFFFF


@dataclass(frozen=True)
class Products:
    """What is joined: vectors float32 [n, d]; `scale` brings the longest row to a length near 1,
    `longest` is its squared length then.

    Queries are brought to that length too, which changes no order: |x|^2 + longest - 2xy is
    smallest where xy is largest, never negative, and as exact for short queries as for long ones.
    """

    vectors: Float32s
    scale: np.float32
    longest: np.float32

    def join(self, rows: Int32s, queries: Int32s, at: Int32s, lists: NearLists) -> None:
        """Offer `rows`, ascending, to the lists at[i] of queries[i]; a row never to itself."""
        d, width, places = self.vectors.shape[1], padded(len(rows)), buffer_places(lists.k)
        _offer(
            self.vectors, rows, queries, at, self.scale, self.longest,
            aligned(width * d), aligned(width), aligned(ROWS * d), aligned(ROWS * width), places,
            lists.points, lists.squared, lists.limits, lists.locks,
        )  # fmt: skip

    def sweep(self, queries: Int32s, lists: NearLists, threads: int) -> None:
        """Offer every row to the lists of the queries. Cost q x n x d."""
        n, at = len(self.vectors), np.arange(len(queries), dtype=np.int32)

        def one(first: int) -> None:
            block = np.arange(first, min(n, first + BLOCK), dtype=np.int32)
            self.join(block, queries, at, lists)

        run_parallel(one, range(0, n, BLOCK), threads)


@dataclass(frozen=True)
class Probing:
    """Centres, how many cells each point asks, and the hubs int32 [h], ascending."""

    cells: Trained
    probes: int
    hubs: Int32s
    expected: float
    cost: float


def join_products(
    vectors: Float32s, neighbours: Int32s, distances: Float32s, request: Request, report: Report
) -> None:
    """Fill the final lists of all rows, neighbours and distances [n, min(k, n - 1)]."""
    threads, every = request.threads, np.arange(len(vectors), dtype=np.int32)
    lists, products = lists_in(neighbours, distances), products_of(vectors)
    with report.phase("plan"):
        queries = drawn(len(vectors), lists.k, seed=request.seed)
        truth = empty_lists(len(queries), lists.k)
        products.sweep(queries, truth, threads)
        probing = chosen_probing(products, queries, truth.points, request)
    report.method = "sweep" if probing is None else "cells"
    report.chosen = {"cells": 1, "pairs per point": len(vectors)}
    if probing is None:
        with report.phase("sweep"):
            products.sweep(every, lists, threads)
    else:
        report.chosen = _probe_all(products, probing, lists, request, report)
    with report.phase("finish"):
        blocks = range(0, len(vectors), CHUNK)
        run_parallel(
            lambda first: _finish(frozen(vectors), first, min(len(vectors), first + CHUNK),
                                  neighbours, distances), blocks, threads,
        )  # fmt: skip
    report.recall = sampled_recall(vectors, queries, truth.points, distances[queries], "ip")


def products_of(vectors: Float32s) -> Products:
    """The vectors with their scale. Cost O(n d)."""
    largest = max(float(np.abs(block).max()) for block in row_blocks(vectors, 8 << 20))
    power = 0.0 if largest == 0 else -np.ceil(np.log2(largest * vectors.shape[1] ** 0.5))
    scale = np.float32(2.0 ** np.clip(power, -126, 126))
    lengths = _lengths(frozen(vectors), scale)
    # a little more than the longest, so that rounding leaves nothing below zero
    longest = np.float32(float(lengths.max()) ** 2 * (1 + 1e-5) or 1.0)
    return Products(frozen(vectors), scale, longest)


def chosen_probing(
    products: Products, queries: Int32s, truth: Int32s, request: Request
) -> Probing | None:
    """The cheapest probes and hubs that reach the recall on the sample; None: compare all."""
    vectors, n = products.vectors, len(products.vectors)
    count = n // cell_size(truth.shape[1])
    if count < 1 / EXACT_SHARE:
        return None
    points = points_of(vectors, np.arange(n, dtype=np.int32), request.seed)
    cells = trained(
        points, count, seed=request.seed, threads=request.threads,
        per_cell=request.memory.per_cell(count),
    )  # fmt: skip
    true = truth[:, :: max(1, truth.shape[1] // TRUE_PLACES)]
    home = nearest_of(points.chosen(true.ravel()), cells.centres, request.threads)
    order = probed_cells(vectors, queries, cells, MOST_PROBES, request.threads)
    place = np.full((len(queries), len(cells.centres)), MOST_PROBES + 1, np.int32)
    np.put_along_axis(place, order, np.arange(1, order.shape[1] + 1, dtype=np.int32)[None], axis=1)
    needed = np.take_along_axis(place, home.reshape(true.shape), axis=1)
    work = np.cumsum((cells.shares * n)[order], axis=1).mean(axis=0)
    by_length = np.argsort(-_lengths(vectors, products.scale), kind="stable").astype(np.int32)
    rank = np.empty(n, np.int32)
    rank[by_length] = np.arange(n, dtype=np.int32)
    best: Probing | None = None
    for hubs in HUBS:
        asked = np.where(rank[true] < hubs, 0, needed)
        probes = _fewest(asked, order.shape[1], request.recall)
        if probes is None:
            continue
        cost = hubs + (float(work[probes - 1]) if probes else 0.0)
        if cost <= EXACT_SHARE * n and (best is None or cost < best.cost):
            found = float((asked <= probes).mean())
            best = Probing(cells, probes, np.sort(by_length[:hubs]), found, cost)
    return best


def _fewest(needed: Int32s, most: int, recall: float) -> int | None:
    for probes in range(most + 1):
        shares = (needed <= probes).mean(axis=1)
        if shares.mean() - MARGIN_ERRORS * shares.std() / np.sqrt(len(shares)) >= recall:
            return probes
    return None


def probed_cells(
    vectors: Float32s, rows: Int32s, cells: Trained, most: int, threads: int
) -> Int32s:
    """For each row the `most` cells to be asked, the most promising first, int32 [m, most]."""
    panel, scale = _promise(cells)
    most = min(most, len(cells.centres))
    out = np.empty((len(rows), most), np.int32)

    def one(first: int) -> None:
        block = rows[first : first + CHUNK]
        wide = vectors[block].astype(np.float64)
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        directions = (wide / np.where(lengths > 0, lengths, 1) / scale).astype(np.float32)
        own = np.arange(len(block), dtype=np.int32)
        points = Points(frozen(directions), own, scale)
        near = near_cells(points, panel, ratio=np.inf, most=most, threads=1)
        order = np.argsort(near.squared, axis=1, kind="stable")
        out[first : first + CHUNK] = np.take_along_axis(near.cells, order, axis=1)

    run_parallel(one, range(0, len(rows), CHUNK), threads)
    return out


def _promise(cells: Trained) -> tuple[Panel, np.float32]:
    """Centres such that |x|^2 + norm - 2xc is least where the most is to be expected of a cell."""
    c, d = cells.centres.shape
    lengths = np.sqrt((cells.centres.astype(np.float64) ** 2).sum(axis=1))
    reach = lengths + RADIUS_SHARE * cells.radii
    scale = np.float32(2.0 ** np.clip(-np.ceil(np.log2(reach.max() or 1.0)), -126, 126))
    values, norms, middle = aligned(padded(c) * d), aligned(padded(c)), np.zeros(d, np.float32)
    every = np.arange(c, dtype=np.int32)
    pack_columns(frozen(cells.centres), every, 0, c, middle, scale, values, norms)
    promised = 2 * float(scale) * (reach.max() - RADIUS_SHARE * cells.radii)
    norms[:c] = promised.astype(np.float32)
    return Panel(cells.centres, cells.radii, middle, values, norms), scale


def _probe_all(
    products: Products, probing: Probing, lists: NearLists, request: Request, report: Report
) -> dict[str, float]:
    vectors, n, c = products.vectors, len(products.vectors), len(probing.cells.centres)
    largest = max(BLOCK, float(probing.cells.shares.max()) * n)
    threads = request.memory.threads_for(1.0 + probing.probes, largest, n, request.threads)
    every = np.arange(n, dtype=np.int32)
    with report.phase("partition"):
        points = points_of(vectors, every, request.seed)
        home = nearest_of(points, probing.cells.centres, threads)
        lives = np.setdiff1d(every, probing.hubs, assume_unique=True).astype(np.int32)
        residents = lists_by(home[lives], lives, c)
        visitors = _visitors(vectors, probing, threads)
    hubs = np.array_split(probing.hubs, -(-len(probing.hubs) // BLOCK)) if len(probing.hubs) else []

    def one(number: int) -> None:
        if number < len(hubs):
            products.join(hubs[number], every, every, lists)
            return
        cell = number - len(hubs)
        if len(residents[cell]):
            products.join(residents[cell], visitors[cell], visitors[cell], lists)

    with report.phase("join"):
        run_parallel(one, range(len(hubs) + c), threads)
    with report.phase("fill"):
        short = np.flatnonzero(np.isinf(lists.limits)).astype(np.int32)
        for first in range(0, len(short), request.memory.list_rows()):
            rows = short[first : first + request.memory.list_rows()]
            swept = empty_lists(len(rows), lists.k)
            products.sweep(rows, swept, threads)
            lists.points[rows], lists.squared[rows] = swept.points, swept.squared
    pairs = len(probing.hubs) + float((residents.sizes * visitors.sizes).sum()) / n
    return {
        "cells": c,
        "largest cell": int(residents.sizes.max()),
        "visits": probing.probes,
        "hubs": len(probing.hubs),
        "pairs per point": pairs,
        "expected recall": probing.expected,
        "filled": len(short),
        "threads": threads,
    }


def _visitors(vectors: Float32s, probing: Probing, threads: int) -> Lists:
    every, c = np.arange(len(vectors), dtype=np.int32), len(probing.cells.centres)
    if not probing.probes:
        return lists_by(every[:0], every[:0], c)
    asked = probed_cells(vectors, every, probing.cells, probing.probes, threads)
    return lists_by(asked.ravel(), np.repeat(every, asked.shape[1]), c)


@kernel
def _lengths(vectors: Float32s, scale: np.float32) -> Float32s:
    """Scaled length of each row."""
    out = np.empty(len(vectors), np.float32)
    for row in range(len(vectors)):
        total = 0.0
        for t in range(vectors.shape[1]):
            value = np.float64(vectors[row, t]) * scale
            total += value * value
        out[row] = np.sqrt(total)
    return out


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
    vectors: Float32s, rows: Int32s, queries: Int32s, lists_at: Int32s,
    scale: np.float32, longest: np.float32,
    panel: Float32s, column_norms: Float32s, tile: Float32s, lines: Float32s, places: int,
    out_points: Int32s, out_squared: Float32s, limits: Float32s, locks: Int32s,
) -> None:  # fmt: skip
    d, size, width, k = vectors.shape[1], len(rows), len(column_norms), out_points.shape[1]
    room = max(places, k)
    middle, row_norms = np.zeros(d, np.float32), np.empty(ROWS, np.float32)
    new_squared = np.empty(max(room, size) + MASK_LANES, np.float32)
    new_points = np.empty(max(room, size), np.int32)
    spare_squared = np.empty(k + room + MASK_LANES, np.float32)
    spare_points = np.empty(k + room, np.int32)
    pack_columns(vectors, rows, 0, size, middle, scale, panel, column_norms)
    column_norms[:size] = longest
    for first in range(0, len(queries), ROWS):
        count = min(ROWS, len(queries) - first)
        pack_rows(vectors, queries, first, count, middle, scale, tile, row_norms)
        _lengthen(tile, row_norms, count, longest)
        for c in range(0, width, COLUMNS):
            squared_tile(False, tile, 0, d, panel, c, row_norms, column_norms, lines)
        for r in range(count):
            query, target, at, found = queries[first + r], lists_at[first + r], r * width, 0
            limit = limits[target]
            if limit == np.inf:
                for j in range(size):
                    new_squared[found], new_points[found] = lines[at + j], rows[j]
                    found += rows[j] != query
                if found > k:
                    keep_smallest(new_squared, new_points, found, k)
                    found = k
            else:
                for c in range(0, width, MASK_LANES):
                    hits = passing(lines, at + c, NO_LIMITS, 0, limit)
                    while hits:
                        j = c + lowest_bit(hits)
                        hits &= hits - 1
                        if lines[at + j] > limit or rows[j] == query:
                            continue
                        new_squared[found], new_points[found] = lines[at + j], rows[j]
                        found += 1
                        if found == places:
                            merge_into(
                                target, new_squared, new_points, found,
                                spare_squared, spare_points,
                                out_points, out_squared, limits, locks,
                            )  # fmt: skip
                            limit, found = limits[target], 0
            if found:
                merge_into(
                    target, new_squared, new_points, found, spare_squared, spare_points,
                    out_points, out_squared, limits, locks,
                )  # fmt: skip


@summing_kernel
def _product(vectors: Float32s, left: int, right: int) -> float:
    total = 0.0
    for t in range(vectors.shape[1]):
        total += np.float64(vectors[left, t]) * np.float64(vectors[right, t])
    return total


@kernel
def _finish(
    vectors: Float32s, first: int, stop: int, neighbours: Int32s, distances: Float32s
) -> None:
    """Distances by the definition, lists in the order (distance, row)."""
    k = neighbours.shape[1]
    exact = np.empty(k, np.float32)
    keys, ordered = np.empty(k, np.int64), np.empty(k, np.int64)
    bits = exact.view(np.int32)
    for row in range(first, stop):
        for j in range(k):
            # plus zero: there is one zero only
            exact[j] = np.float32(-_product(vectors, row, neighbours[row, j])) + np.float32(0)
            # the bits of negative floats run backwards
            order = bits[j] if bits[j] >= 0 else np.int32(bits[j] ^ LAST)
            keys[j] = (np.int64(order) << 32) | np.int64(neighbours[row, j])
        sort_keys(keys, ordered)
        for j in range(k):
            order = np.int32(ordered[j] >> 32)
            distances[row, j] = float_of(order if order >= 0 else np.int32(order ^ LAST))
            neighbours[row, j] = ordered[j] & LAST
