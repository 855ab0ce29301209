"""The join by inner products cut into shards: groups of cells with the points that live in them.

A point asks cells of several shards. The one where it asks most is its home: there its list is
begun, with the hubs, and all of it is kept. To every other shard it comes as a guest, brings along
how far its list reaches, and takes home only what may still enter. Askers come block by block, so
a task's memory doesn't grow with how many ask: only a shard's residents stay. The k smallest
(value, target) of a union don't depend on how it was cut, so the lists are, to the bit, those of
one process. Refuses storage and scheduling.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import Int64s, Lists, lists_by, starts_of
from index_build.selfjoin.finish import Pairs
from index_build.selfjoin.group import grouped
from index_build.selfjoin.jit import kernel
from index_build.selfjoin.join import NearLists, empty_lists
from index_build.selfjoin.lanes import MASK_LANES
from index_build.selfjoin.points import Points, frozen
from index_build.selfjoin.probing import Probing, asked_cells
from index_build.selfjoin.products import Products
from index_build.selfjoin.select import keep_smallest
from index_build.selfjoin.shards import hold_places
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Residents:
    """points: int32 [m], ascending, that live in the cells home int32 [m]; none is a hub."""

    points: Int32s
    home: Int32s


@dataclass(frozen=True)
class Calls:
    """points: int32 [m], ascending. asked: the shard's cells that each asks. roams: bool [m],
    whether it asks cells of other shards, too.
    """

    points: Int32s
    asked: Lists
    roams: Bools

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Askers:
    """vectors: float32 [m, d] of those who call. several: bool [m], who stands for equal rows."""

    calls: Calls
    vectors: Float32s
    several: Bools

    def __len__(self) -> int:
        return len(self.calls)


@dataclass(frozen=True)
class ProductShard:
    """What a task holds: residents and hubs, `names` int32 [t] ascending, as targets of the same
    order, and those of them that live in each of its cells, or are hubs.
    """

    names: Int32s
    targets: Points
    numbers: Int32s
    residents: Lists
    hubs: Int32s
    longest: np.float32


@dataclass(frozen=True)
class Begun:
    """Lists of a block of askers at home, in no order: neighbours, values and distances [m, k]."""

    neighbours: Int32s
    squared: Float32s
    distances: Float32s
    limits: Float32s


def grouped_products(probing: Probing, points: Points, shards: int, *, threads: int) -> Int32s:
    """The shard of each cell, int32 [c]; `points`, some of all, tell what is asked together.

    Half of a shard's share counts work and half residents, so no shard has more than twice its
    share of the vectors, whatever is asked of them.
    """
    asked = asked_cells(points, probing.cells, probing.probes, threads)
    c, shares = len(probing.cells.centres), probing.cells.shares
    work = shares * np.bincount(asked.ravel(), minlength=c)
    weight = work / (work.sum() or 1.0) + shares / (shares.sum() or 1.0) + 1e-9
    first = np.repeat(asked[:, :1], asked.shape[1] - 1, axis=1)
    ends = np.stack([first.ravel(), asked[:, 1:].ravel()])
    return grouped(probing.cells.centres, ends, weight, shards)


def residents_by_shard(
    first: int, home: Int32s, shard_of: Int32s, shards: int
) -> Iterator[Residents]:
    """For each shard those of the points first.. that live in it; home int32 [m], -1: nowhere."""
    lives = np.flatnonzero(home >= 0).astype(np.int32)
    living = lists_by(shard_of[home[lives]], lives, shards)
    for shard in range(shards):
        yield Residents(living[shard] + np.int32(first), home[living[shard]])


def calls_by_shard(
    first: int, asked: Int32s, shard_of: Int32s, shards: int
) -> Iterator[tuple[Calls, Calls]]:
    """For each shard its own askers and its guests among points first.., of asked [m, probes]."""
    goes = shard_of[asked]
    home = _home_shards(goes, shards)
    every = np.arange(len(asked), dtype=np.int32)
    flat = np.arange(asked.size, dtype=np.int32)
    visits = lists_by(goes.ravel(), flat, shards)
    roams = (goes != home[:, None]).any(axis=1)
    at_home = lists_by(home, every, shards)
    for shard in range(shards):
        asking = visits[shard] // np.int32(asked.shape[1])
        comes = home[asking] != shard
        yield (
            _calls(first, asked, visits[shard][~comes], at_home[shard], roams),
            _calls(first, asked, visits[shard][comes], np.unique(asking[comes]), roams),
        )


def _calls(first: int, asked: Int32s, visits: Int32s, points: Int32s, roams: Bools) -> Calls:
    counts = np.bincount(visits // asked.shape[1], minlength=len(asked))[points]
    cells = Lists(starts_of(counts), asked.ravel()[visits])
    return Calls(points + np.int32(first), cells, roams[points])


@kernel
def _home_shards(goes: Int32s, shards: int) -> Int32s:
    """The shard where most of each row's cells are; of several the first."""
    out, counts = np.zeros(len(goes), np.int32), np.zeros(shards, np.int32)
    for i in range(len(goes)):
        for j in range(goes.shape[1]):
            counts[goes[i, j]] += 1
        best = goes[i, 0]
        for j in range(goes.shape[1]):
            shard = goes[i, j]
            if counts[shard] > counts[best] or (counts[shard] == counts[best] and shard < best):
                best = shard
        out[i] = best
        for j in range(goes.shape[1]):
            counts[goes[i, j]] = 0
    return out


def shard_of_products(
    residents: Residents, hubs: Int32s, vectors: Float32s, numbers: Int32s,
    *, scale: float, longest: float,
) -> ProductShard:  # fmt: skip
    """vectors: float32 [t, d], of the residents and then of the hubs. numbers: the shard's cells.

    No hubs where guests are joined: they were offered at home.
    """
    names = np.concatenate([residents.points, hubs])
    order = np.argsort(names).astype(np.int32)
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=np.int32)
    lives, hubs_at = np.split(place, [len(residents.points)])
    cells = np.searchsorted(numbers, residents.home).astype(np.int32)
    return ProductShard(
        names=names[order],
        targets=Points(frozen(vectors), order, np.float32(scale)),
        numbers=numbers,
        residents=lists_by(cells, lives, len(numbers)),
        hubs=np.sort(hubs_at),
        longest=np.float32(longest),
    )


def begun_lists(
    shard: ProductShard, askers: Askers, k: int, *, threads: int
) -> Begun:  # fmt: skip
    """First round, for a block of own askers: their lists out of the shard's cells and the hubs."""
    products, lists = _asked_of(shard, askers), empty_lists(len(askers), k)
    _join(shard, products, askers, lists, threads)
    every = np.arange(len(askers), dtype=np.int32)
    distances = products.lengths(every, lists.points)
    return Begun(_named(shard, lists.points), lists.squared, distances, lists.limits)


def found_for_guests(
    shard: ProductShard, guests: Askers, limits: Float32s, k: int, *, threads: int
) -> Pairs:  # fmt: skip
    """Second round, for a block of guests: what may enter their lists, whose `limits` [m] they
    bring along.

    The pairs of one guest follow each other, guests ascending.
    """
    products, lists = _asked_of(shard, guests), empty_lists(len(guests), k)
    hold_places(lists, np.arange(len(guests), dtype=np.int32), limits)
    _join(shard, products, guests, lists, threads)
    entered = (lists.points >= 0) & (lists.points < len(shard.names))
    found = np.where(entered, lists.points, EMPTY)
    distances = products.lengths(np.arange(len(guests), dtype=np.int32), found)
    points = np.repeat(guests.calls.points, entered.sum(axis=1))
    return Pairs(points, shard.names[found[entered]], lists.squared[entered], distances[entered])


def _asked_of(shard: ProductShard, askers: Askers) -> Products:
    every, points = np.arange(len(askers), dtype=np.int32), askers.calls.points
    at = np.searchsorted(shard.names, points)
    is_there = np.isin(points, shard.names, assume_unique=True)
    own = np.where(is_there & ~askers.several, at, EMPTY).astype(np.int32)
    asking = Points(frozen(askers.vectors), every, shard.targets.scale)
    return Products(shard.targets, asking, own, shard.longest)


def _join(
    shard: ProductShard, products: Products, askers: Askers, lists: NearLists, threads: int
) -> None:
    every = np.arange(len(askers), dtype=np.int32)
    asked = askers.calls.asked
    cells = np.searchsorted(shard.numbers, asked.values).astype(np.int32)
    asking = lists_by(cells, np.repeat(every, asked.sizes), len(shard.numbers))
    products.probe(shard.hubs, shard.residents, asking, lists, threads)


def _named(shard: ProductShard, found: Int32s) -> Int32s:
    held = found >= 0
    found[held] = shard.names[found[held]]
    return found


def absorb(neighbours: Int32s, squared: Float32s, distances: Float32s, more: Pairs) -> None:
    """Bring candidates into lists [m, k], in place and in no order: the k smallest (value, point).

    `more.points` are places of lists, ascending; no list holds its candidate already.
    """
    starts = starts_of(np.bincount(more.points, minlength=len(neighbours)))
    _absorb(
        starts, more.neighbours, more.squared, more.distances,
        neighbours, squared, distances, int(np.diff(starts).max(initial=0)),
    )  # fmt: skip


@kernel
def _absorb(  # noqa: PLR0913, PLR0917
    starts: Int64s, new_points: Int32s, new_squared: Float32s, new_exact: Float32s,
    neighbours: Int32s, squared: Float32s, distances: Float32s, most: int,
) -> None:  # fmt: skip
    k = neighbours.shape[1]
    points, exact = np.empty(k + most, np.int32), np.empty(k + most, np.float32)
    values = np.empty(k + most + MASK_LANES, np.float32)
    kept_points, kept_values = points.copy(), values.copy()
    for row in range(len(neighbours)):
        new = starts[row + 1] - starts[row]
        if new == 0:
            continue
        points[:k], values[:k], exact[:k] = neighbours[row], squared[row], distances[row]
        for j in range(new):
            points[k + j] = new_points[starts[row] + j]
            values[k + j] = new_squared[starts[row] + j]
            exact[k + j] = new_exact[starts[row] + j]
        kept_points[: k + new], kept_values[: k + new] = points[: k + new], values[: k + new]
        largest = keep_smallest(kept_values, kept_points, k + new, k)
        last, free = np.int32(EMPTY), 0
        for j in range(k):
            if kept_values[j] == largest:
                last = max(last, kept_points[j])
                free += kept_points[j] < 0
        kept = 0
        for j in range(k + new):
            if values[j] > largest or (values[j] == largest and points[j] > last):
                continue
            if points[j] < 0:
                # empty places are all alike: as many as stay
                if free == 0:
                    continue
                free -= 1
            neighbours[row, kept], squared[row, kept] = points[j], values[j]
            distances[row, kept] = exact[j]
            kept += 1
