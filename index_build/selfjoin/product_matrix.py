"""The join by inner products in one process, from distinct vectors to their lists.

Owns the order of the steps in space `ip` and what is reported of them. Equal vectors are one point:
such a point may be its own neighbour, since two equal rows aren't at distance 0 here.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import lists_by
from index_build.selfjoin.join import NearLists, empty_lists
from index_build.selfjoin.plan import cell_size, drawn
from index_build.selfjoin.points import points_of
from index_build.selfjoin.probing import (
    Probing,
    asked_cells,
    askers_by_cell,
    chosen_probing,
    residents_of,
)
from index_build.selfjoin.products import BLOCK, Products, products_of
from index_build.selfjoin.request import Report, Request, sampled_recall
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s


@dataclass(frozen=True)
class _Sample:
    points: Int32s
    truth: NearLists


def join_products(
    vectors: Float32s, rows: Int32s, several: Int32s, lists: NearLists,
    request: Request, report: Report,
) -> None:  # fmt: skip
    """Fill the final lists [u, min(k, u)] of points that stand for the given rows.

    several: the points that stand for more than one row.
    """
    u, threads = len(rows), request.threads
    products = products_of(vectors, rows, several)
    with report.phase("plan"):
        sample = _sampled(products, lists.k, request)
        probing = chosen_probing(
            products, (sample.points, sample.truth.points), request.recall,
            seed=request.seed, threads=threads,
            per_cell=request.memory.per_cell(u // cell_size(u, lists.k)),
        )  # fmt: skip
    report.method = "sweep" if probing is None else "cells"
    report.chosen = {"cells": 1, "pairs per point": u}
    if probing is None:
        with report.phase("sweep"):
            products.sweep(np.arange(u, dtype=np.int32), lists, threads)
    else:
        report.chosen = _probe_all(products, probing, lists, request, report)
    with report.phase("finish"):
        products.finish(lists, threads)
    truth = sample.truth.points
    report.recall = sampled_recall(
        vectors, rows[sample.points], np.where(truth < 0, EMPTY, rows[truth]),
        lists.squared[sample.points], "ip",
    )  # fmt: skip


def _sampled(products: Products, k: int, request: Request) -> _Sample:
    queries = drawn(len(products.targets), k, seed=request.seed)
    truth = empty_lists(len(queries), k)
    products.sweep(queries, truth, request.threads)
    return _Sample(queries, truth)


def _probe_all(
    products: Products, probing: Probing, lists: NearLists, request: Request, report: Report
) -> dict[str, float]:
    u, c = len(products.targets), len(probing.cells.centres)
    largest = max(BLOCK, float(probing.cells.shares.max()) * u)
    threads = request.memory.threads_for(1.0 + probing.probes, largest, u, request.threads)
    with report.phase("partition"):
        points = points_of(products.targets.vectors, products.targets.rows, request.seed)
        home = residents_of(points, probing.cells, probing.hubs, threads)
        lives = np.flatnonzero(home >= 0).astype(np.int32)
        residents = lists_by(home[lives], lives, c)
        asked = asked_cells(points, probing.cells, probing.probes, threads)
        askers = askers_by_cell(asked, c)
        del asked, home
    with report.phase("join"):
        products.probe(probing.hubs, residents, askers, lists, threads)
    with report.phase("fill"):
        short = np.flatnonzero(np.isinf(lists.limits)).astype(np.int32)
        for first in range(0, len(short), request.memory.list_rows()):
            rows = short[first : first + request.memory.list_rows()]
            swept = empty_lists(len(rows), lists.k)
            products.sweep(rows, swept, threads)
            lists.points[rows], lists.squared[rows] = swept.points, swept.squared
    pairs = len(probing.hubs) + float((residents.sizes * askers.sizes).sum()) / u
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
