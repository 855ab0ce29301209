"""`knn_matrix`: the whole self-join in one process, from vectors to sorted lists.

Owns the order of the steps and what is reported of them. Refuses files, clusters and numerics.
"""

import os
from dataclasses import dataclass
from functools import partial

import numpy as np

from index_build.duplicates import collapse
from index_build.selfjoin.border import partition
from index_build.selfjoin.cells import Cells
from index_build.selfjoin.circular import circular_neighbours, expand_in_place, on_track
from index_build.selfjoin.finish import finish
from index_build.selfjoin.jit import run_parallel
from index_build.selfjoin.join import (
    NearLists,
    join_residents,
    join_visitors,
    lists_in,
    unbegun_lists,
)
from index_build.selfjoin.memory import Memory
from index_build.selfjoin.plan import (
    Plan,
    cell_size,
    choose_plan,
    drawn_sample,
)
from index_build.selfjoin.points import Points, points_of
from index_build.selfjoin.product_matrix import join_products
from index_build.selfjoin.request import Report, Request, sampled_recall
from index_build.selfjoin.sweep import nearest_points
from index_build.selfjoin.train import trained
from nearfield.errors import UsageError
from nearfield.exact import exact_search
from nearfield.space import Float32s, Int32s, SpaceName, prepared
from nearfield.vectorset import check_finite, row_blocks

SMALL = 4_096
"""Up to this many rows everything is compared, with a certificate."""
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class NeighbourMatrix:
    """neighbours int32 [n, k'], distances float32 [n, k'], k' = min(k, n - 1).

    Lists are sorted by (distance, row), without the row itself and without repeats.
    """

    neighbours: Int32s
    distances: Float32s
    report: Report


def knn_matrix(  # noqa: PLR0913  (all but the first two by keyword)
    vectors: Float32s,
    k: int,
    *,
    space: SpaceName = "l2",
    recall: float = 0.95,
    memory_bytes: int = 2 << 30,
    threads: int | None = None,
    seed: int = 0,
) -> NeighbourMatrix:
    """The k nearest neighbours of every row of vectors float32 [n, d].

    `recall`: the tie-aware share of true neighbours to find, on average over rows; 1 asks for the
    certified exact result, as small n always get it. Vectors on one circle (d = 2, equal lengths)
    or line (d = 1) get the exact result by sorting. Where a partition saves nothing, all pairs are
    compared in float32. The result depends on `seed`, never on `threads`.

    Memory: vectors, output, and at most `memory_bytes` (`index_build.selfjoin.memory` has the
    formula); raises `UsageError` where that can't be kept. Raises `InputRejected` for vectors that
    aren't finite float32, or zero under cosine.
    """
    check_finite(vectors)
    if k < 1 or not 0 < recall <= 1:
        raise UsageError(f"expected k >= 1 and 0 < recall <= 1; got k={k}, recall={recall}")
    copied = space == "cosine" or not vectors.flags.c_contiguous
    memory = Memory(
        memory_bytes, len(vectors), vectors.shape[1], min(k, len(vectors)), copied * vectors.nbytes
    )
    request = Request(k, space, recall, threads or os.cpu_count() or 1, seed, memory)
    report = Report()
    with report.phase("prepare"):
        memory.check_copy()
        ready = _unit(vectors) if space == "cosine" else np.ascontiguousarray(vectors)
        sorted_way = on_track(ready, space)
    if sorted_way:
        memory.check_start()
        with report.phase("circle"):
            found = circular_neighbours(ready, k, space=space, threads=request.threads)
        if found is not None:
            report.method = "circle" if ready.shape[1] > 1 else "line"
            return NeighbourMatrix(*found, report)
    if recall == 1 or len(ready) <= max(SMALL, 1):
        return _certified(ready, request, report)
    memory.check_start()
    return _by_groups(ready, request, report)


def _unit(vectors: Float32s) -> Float32s:
    """The vectors at unit length, in blocks: the division runs in float64."""
    out, first = np.empty(vectors.shape, np.float32), 0
    for block in row_blocks(vectors, BLOCK_BYTES):
        out[first : first + len(block)] = prepared(block, "cosine")
        first += len(block)
    return out


def _certified(vectors: Float32s, request: Request, report: Report) -> NeighbourMatrix:
    request.memory.check_exact()
    n, block = len(vectors), request.memory.exact_rows()
    neighbours = np.empty((n, min(request.k, n - 1)), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    with report.phase("exact"):
        for first in range(0, n, block):
            rows = np.arange(first, min(n, first + block), dtype=np.int32)
            neighbours[rows], distances[rows] = exact_search(
                vectors[rows], vectors, request.k, space=request.space, own_rows=rows
            )
    return NeighbourMatrix(neighbours, distances, report)


def _by_groups(vectors: Float32s, request: Request, report: Report) -> NeighbourMatrix:
    with report.phase("prepare"):
        groups = collapse(vectors)
    n, u = len(vectors), len(groups.representatives)
    neighbours = np.empty((n, min(request.k, n - 1)), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    # lists of the groups stand in the first u rows, and are as wide as there are groups to list
    products = request.space == "ip"
    width = min(request.k, n - 1, u if products else u - 1)
    neighbours[:u, width:], distances[:u, width:] = -1, np.inf
    if width:
        lists = neighbours[:u, :width], distances[:u, :width]
        join_distinct(vectors, groups.representatives, groups.shared, lists, request, report)
    if groups.any_equal:
        with report.phase("expand"):
            expand_in_place(
                groups, neighbours, distances, request.memory.list_rows(), own_first=not products
            )
    return NeighbourMatrix(neighbours, distances, report)


def join_distinct(
    vectors: Float32s, rows: Int32s, several: Int32s, out: tuple[Int32s, Float32s],
    request: Request, report: Report,
) -> tuple[Float32s, Int32s] | None:  # fmt: skip
    """Fill the final lists [u, k], neighbours and distances, of points that are ascending rows of
    prepared vectors, all different. Returns the centres of the cells and each point's home, None
    where no cells were joined by distances.

    several: points that stand for more than one row, which matters by inner products.
    """
    if request.space == "ip":
        join_products(vectors, rows, several, lists_in(*out), request, report)
        return None
    points = points_of(vectors, rows, request.seed)
    return _join_points(points, unbegun_lists(*out), request, report)


def _join_points(
    points: Points, lists: NearLists, request: Request, report: Report
) -> tuple[Float32s, Int32s] | None:
    with report.phase("plan"):
        sample = drawn_sample(points, lists.k, seed=request.seed, threads=request.threads)
        train = partial(
            trained, points, seed=request.seed, threads=request.threads,
            per_cell=request.memory.per_cell(len(points) // cell_size(len(points), lists.k)),
        )  # fmt: skip
        plan = choose_plan(points, sample, request.recall, train, threads=request.threads)
    report.method = "sweep" if plan is None else "cells"
    if plan is None:
        order, home = _sweep_all(points, lists, request, report), None
    else:
        order, home = _run_plan(points, plan, lists, request, report)
    with report.phase("finish"):
        finish(
            points, lists.points, lists.squared, order,
            space=request.space, threads=request.threads,
        )  # fmt: skip
    report.recall = sampled_recall(
        points.vectors, points.rows[sample.points], points.rows[sample.truth],
        lists.squared[sample.points], request.space,
    )  # fmt: skip
    return None if plan is None or home is None else (plan.panel.centres, home)


def _run_plan(
    points: Points, plan: Plan, lists: NearLists, request: Request, report: Report
) -> tuple[list[Int32s], Int32s]:
    threads = request.memory.threads_for(plan.visits, plan.largest, len(points), request.threads)
    with report.phase("partition"):
        cells = partition(points, plan.panel, ratio=plan.ratio, most=plan.most, threads=threads)
    every = range(len(cells.residents))
    with report.phase("join residents"):
        run_parallel(lambda c: join_residents(points, cells, lists, c), every, threads)
    with report.phase("join visitors"):
        run_parallel(lambda c: join_visitors(points, cells, lists, c), every, threads)
    with report.phase("fill"):
        short = np.flatnonzero(np.isinf(lists.limits)).astype(np.int32)
        _sweep_into(points, short, lists, request)
    report.chosen = _facts(points, plan, cells) | {"filled": len(short), "threads": threads}
    return [cells.residents[cell] for cell in every], cells.home


def _facts(points: Points, plan: Plan, cells: Cells) -> dict[str, float]:
    return {
        "cells": len(cells.centres),
        "largest cell": int(cells.residents.sizes.max()),
        "ratio": plan.ratio,
        "visits": len(cells.visited.values) / len(cells.home),
        "pairs per point": cells.pairs_per_point,
        "expected recall": plan.expected,
    }


def _sweep_all(points: Points, lists: NearLists, request: Request, report: Report) -> list[Int32s]:
    every = np.arange(len(points), dtype=np.int32)
    with report.phase("sweep"):
        _sweep_into(points, every, lists, request)
    report.chosen = {"cells": 1, "pairs per point": len(points)}
    return np.array_split(every, -(-len(every) // 1_024))


def _sweep_into(points: Points, chosen: Int32s, lists: NearLists, request: Request) -> None:
    block = request.memory.list_rows()
    for first in range(0, len(chosen), block):
        rows = chosen[first : first + block]
        swept = nearest_points(points, rows, lists.k, threads=request.threads)
        lists.points[rows], lists.squared[rows] = swept.points, swept.squared
