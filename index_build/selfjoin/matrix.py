"""`knn_matrix`: the whole self-join in one process, from vectors to sorted lists.

Owns the order of the steps and what is reported of them. Refuses files, clusters and numerics.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from index_build.duplicates import Collapsed, collapse, expand
from index_build.selfjoin.cells import Cells
from index_build.selfjoin.finish import finish
from index_build.selfjoin.jit import run_parallel
from index_build.selfjoin.join import NearLists, join_residents, join_visitors, lists_in
from index_build.selfjoin.nearest import partition
from index_build.selfjoin.plan import Plan, Sample, choose_plan, drawn_sample, needs_care
from index_build.selfjoin.points import Points, points_of
from index_build.selfjoin.sweep import nearest_points
from nearfield.errors import UsageError
from nearfield.exact import exact_search
from nearfield.space import Float32s, Int32s, SpaceName, pair_distances, prepared
from nearfield.vectorset import check_finite

SMALL = 4_096
"""Up to this many rows everything is compared, with a certificate."""
EXPAND_ROWS = 65_536
TIE = 1e-6
BYTES_PER_POINT = 64
BYTES_PER_VISIT = 16


@dataclass
class Report:
    """What was done: seconds per phase, parameters chosen, recall on the sample (1 when exact)."""

    seconds: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, float] = field(default_factory=dict)
    recall: float = 1.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to phase `name`."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(frozen=True)
class NeighbourMatrix:
    """neighbours int32 [n, k'], distances float32 [n, k'], k' = min(k, n - 1).

    Lists are sorted by (distance, row), without the row itself and without repeats.
    """

    neighbours: Int32s
    distances: Float32s
    report: Report


@dataclass(frozen=True)
class Request:
    """What was asked for; see `knn_matrix`."""

    k: int
    space: SpaceName
    recall: float
    memory_bytes: int
    threads: int
    seed: int


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
    certified exact result, as `ip` and small n always get it. Where a partition saves nothing,
    all pairs are compared in float32. The result depends on `seed`, never on `threads`.

    Memory beyond vectors (twice under cosine, which needs them at unit length) and output: about
    64 n + 16 n visits bytes, and 20 MB + 4 MB per thread (k = 100, d = 128); raises `UsageError`
    where `memory_bytes` is less. Raises `InputRejected` for values that aren't finite.
    """
    check_finite(vectors)
    if k < 1 or not 0 < recall <= 1:
        raise UsageError(f"expected k >= 1 and 0 < recall <= 1; got k={k}, recall={recall}")
    request = Request(k, space, recall, memory_bytes, threads or os.cpu_count() or 1, seed)
    report = Report()
    with report.phase("prepare"):
        ready = np.ascontiguousarray(prepared(vectors, space))
    if recall == 1 or space == "ip" or len(ready) <= SMALL:
        return _certified(ready, request, report)
    with report.phase("prepare"):
        groups = collapse(ready)
        points = points_of(ready, groups.representatives, seed)
    return _joined(points, groups, request, report)


def _certified(vectors: Float32s, request: Request, report: Report) -> NeighbourMatrix:
    with report.phase("exact"):
        own = np.arange(len(vectors), dtype=np.int32)
        found = exact_search(vectors, vectors, request.k, space=request.space, own_rows=own)
    return NeighbourMatrix(*found, report)


def _joined(points: Points, groups: Collapsed, request: Request, report: Report) -> NeighbourMatrix:
    n, u = len(points.vectors), len(points)
    neighbours = np.empty((n, min(request.k, n - 1)), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    # lists of the groups stand in the first u rows, and are as wide as there are other groups
    width = min(request.k, u - 1)
    neighbours[:u, width:], distances[:u, width:] = -1, np.inf
    if width:
        _join_points(points, neighbours[:u, :width], distances[:u, :width], request, report)
    if groups.any_equal:
        with report.phase("expand"):
            _expand_in_place(groups, neighbours, distances)
    return NeighbourMatrix(neighbours, distances, report)


def _join_points(
    points: Points, neighbours: Int32s, distances: Float32s, request: Request, report: Report
) -> None:
    lists = lists_in(neighbours, distances)
    with report.phase("plan"):
        sample = drawn_sample(points, lists.k, seed=request.seed, threads=request.threads)
        points = replace(points, careful=needs_care(points, sample))
        plan = choose_plan(
            points, sample, request.recall, seed=request.seed, threads=request.threads
        )
    if plan is None:
        order = _sweep_all(points, lists, request, report)
    else:
        _check_memory(plan, len(points), request)
        order = _run_plan(points, plan, lists, request, report)
    with report.phase("finish"):
        finish(
            points, lists.points, lists.squared, order,
            space=request.space, threads=request.threads,
        )  # fmt: skip
    report.recall = _sampled_recall(points, sample, lists.squared, request.space)


def _run_plan(
    points: Points, plan: Plan, lists: NearLists, request: Request, report: Report
) -> list[Int32s]:
    with report.phase("partition"):
        cells = partition(
            points, plan.panel, ratio=plan.ratio, most=plan.most, threads=request.threads
        )
    every = range(len(cells.residents))
    with report.phase("join residents"):
        run_parallel(lambda c: join_residents(points, cells, lists, c), every, request.threads)
    with report.phase("join visitors"):
        run_parallel(lambda c: join_visitors(points, cells, lists, c), every, request.threads)
    with report.phase("fill"):
        short = np.flatnonzero(np.isinf(lists.limits)).astype(np.int32)
        _sweep_into(points, short, lists, request)
    report.chosen = _facts(points, plan, cells) | {"filled": len(short)}
    return [cells.residents[cell] for cell in every]


def _facts(points: Points, plan: Plan, cells: Cells) -> dict[str, float]:
    return {
        "cells": len(cells.centres),
        "largest cell": int(cells.residents.sizes.max()),
        "ratio": plan.ratio,
        "visits": len(cells.visited.values) / len(cells.home),
        "pairs per point": cells.pairs_per_point,
        "expected recall": plan.expected,
        "careful": points.careful,
    }


def _sweep_all(points: Points, lists: NearLists, request: Request, report: Report) -> list[Int32s]:
    every = np.arange(len(points), dtype=np.int32)
    with report.phase("sweep"):
        _sweep_into(points, every, lists, request)
    report.chosen = {"cells": 1, "pairs per point": len(points)}
    return np.array_split(every, -(-len(every) // 1_024))


def _sweep_into(points: Points, chosen: Int32s, lists: NearLists, request: Request) -> None:
    for first in range(0, len(chosen), EXPAND_ROWS):
        rows = chosen[first : first + EXPAND_ROWS]
        swept = nearest_points(points, rows, lists.k, threads=request.threads)
        lists.points[rows], lists.squared[rows] = swept.points, swept.squared


def _check_memory(plan: Plan, points: int, request: Request) -> None:
    needed = int(points * (BYTES_PER_POINT + BYTES_PER_VISIT * plan.visits))
    if needed > request.memory_bytes:
        raise UsageError(
            f"expected memory_bytes >= {needed:,} for {points:,} points in {plan.visits:.1f} cells "
            f"each; got {request.memory_bytes:,}. Give more, ask for less recall, or use shards"
        )


def _sampled_recall(points: Points, sample: Sample, distances: Float32s, space: SpaceName) -> float:
    found = []
    for point, true in zip(sample.points, sample.truth.points, strict=True):
        own, theirs = points.vectors[points.rows[point]], points.vectors[points.rows[true]]
        kth = pair_distances(own, theirs, space).max()
        found.append((distances[point] <= kth * (1 + TIE)).mean())
    return float(np.mean(found))


def _expand_in_place(groups: Collapsed, neighbours: Int32s, distances: Float32s) -> None:
    # a group's number is at most any of its rows, so going down nothing is overwritten unread
    for stop in range(len(neighbours), 0, -EXPAND_ROWS):
        rows = np.arange(max(0, stop - EXPAND_ROWS), stop, dtype=np.int32)
        own = groups.group_of[rows]
        neighbours[rows], distances[rows] = expand(
            groups, rows, neighbours[own], distances[own], neighbours.shape[1]
        )
