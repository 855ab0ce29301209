"""Inner products: which cells a point asks, and which points, the hubs, are asked by everyone.

Cells where large products are to be expected: the point's direction times the centre, plus a share
of the radius. The longest points of all are hubs. How many of both is computed on a sample with
known truth, as for distances. Owns that choice; refuses to compare points.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Lists, lists_by
from index_build.selfjoin.jit import run_parallel
from index_build.selfjoin.nearest import CHUNK, Panel, near_cells
from index_build.selfjoin.pack import aligned, pack_columns, padded
from index_build.selfjoin.plan import EXACT_SHARE, MARGIN_ERRORS, TRUE_PLACES, cell_size
from index_build.selfjoin.points import Points, frozen, points_of
from index_build.selfjoin.products import Products, lengths_of
from index_build.selfjoin.train import SAMPLE_PER_CELL, Trained, nearest_of, trained
from nearfield.space import Int32s

MOST_PROBES = 128
HUBS = 0, 1_024, 4_096, 16_384, 65_536
RADIUS_SHARE = 0.6
"""Of a cell's radius, added to its centre's product: the least work on five kinds of data."""


@dataclass(frozen=True)
class Probing:
    """Centres, how many cells each point asks, and the hubs int32 [h], ascending.

    `expected` recall and `cost`, products per point, as the sample predicts them.
    """

    cells: Trained
    probes: int
    hubs: Int32s
    expected: float
    cost: float


def chosen_probing(
    products: Products, sample: tuple[Int32s, Int32s], recall: float,
    *, seed: int, threads: int, per_cell: int = SAMPLE_PER_CELL,
) -> Probing | None:  # fmt: skip
    """The cheapest probes and hubs that reach the recall on the sample; None: compare all.

    sample: points int32 [q] and the true neighbours [q, k] of each. `per_cell` points of each cell
    train it.
    """
    queries, truth = sample
    points = points_of(products.targets.vectors, products.targets.rows, seed)
    n = len(points)
    count = n // cell_size(n, truth.shape[1])
    if count < 1 / EXACT_SHARE:
        return None
    cells = trained(points, count, seed=seed, threads=threads, per_cell=per_cell)
    true = truth[:, :: max(1, truth.shape[1] // TRUE_PLACES)]
    home = nearest_of(points.chosen(true.ravel()), cells.centres, threads)
    order = asked_cells(points.chosen(queries), cells, MOST_PROBES, threads)
    place = np.full((len(queries), len(cells.centres)), MOST_PROBES + 1, np.int32)
    np.put_along_axis(place, order, np.arange(1, order.shape[1] + 1, dtype=np.int32)[None], axis=1)
    needed = np.take_along_axis(place, home.reshape(true.shape), axis=1)
    work = np.cumsum((cells.shares * n)[order], axis=1).mean(axis=0)
    by_length = np.argsort(-lengths_of(products.targets), kind="stable").astype(np.int32)
    rank = np.empty(n, np.int32)
    rank[by_length] = np.arange(n, dtype=np.int32)
    best: Probing | None = None
    for hubs in HUBS:
        asked = np.where(rank[true] < hubs, 0, needed)
        probes = _fewest(asked, order.shape[1], recall)
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


def asked_cells(points: Points, cells: Trained, most: int, threads: int) -> Int32s:
    """For each point the `most` cells that it asks, the most promising first, int32 [m, most].

    What a point asks doesn't depend on the other points.
    """
    most = min(most, len(cells.centres))
    out = np.empty((len(points), most), np.int32)
    if not most:
        return out
    panel, scale = _promise(cells)

    def one(first: int) -> None:
        block = points.rows[first : first + CHUNK]
        wide = points.vectors[block].astype(np.float64)
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        directions = (wide / np.where(lengths > 0, lengths, 1) / scale).astype(np.float32)
        own = np.arange(len(block), dtype=np.int32)
        asking = Points(frozen(directions), own, scale)
        near = near_cells(asking, panel, ratio=np.inf, most=most, threads=1)
        order = np.argsort(near.squared, axis=1, kind="stable")
        out[first : first + CHUNK] = np.take_along_axis(near.cells, order, axis=1)

    run_parallel(one, range(0, len(points), CHUNK), threads)
    return out


def residents_of(points: Points, cells: Trained, hubs: Int32s, threads: int) -> Int32s:
    """The cell that each point lives in, int32 [m]; -1 for hubs, numbers among these points."""
    home = nearest_of(points, cells.centres, threads)
    home[hubs] = -1
    return home


def askers_by_cell(asked: Int32s, cells: int) -> Lists:
    """For each cell the points that ask it, of asked [m, probes]."""
    points = np.arange(len(asked), dtype=np.int32)
    return lists_by(asked.ravel(), np.repeat(points, asked.shape[1]), cells)


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
