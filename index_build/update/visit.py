"""New recordings against those in the cells that they visit: both sides' finds.

A query visits cells; in each it is compared with all residents. It keeps its own nearest, and every
resident whose k-th distance it beats is noted, named by the query or not. Products propose,
distances by the definition decide, so nothing depends on their rounding; nor does it on the number
of threads. Holds no I/O; the kernels are in meet.py.
"""

from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.cells import Lists, lists_by
from index_build.selfjoin.jit import run_parallel
from index_build.selfjoin.join import NearLists, buffer_places, empty_lists
from index_build.selfjoin.lanes import ROWS
from index_build.selfjoin.pack import aligned, padded, scale_for
from index_build.selfjoin.points import frozen
from index_build.selfjoin.rounded import room_for_columns, room_for_rows, whole_aligned
from index_build.update.meet import KINDS, finish_lists, meet, meet_products
from index_build.update.rows import Rows
from nearfield.space import Float32s, Int32s, SpaceName

SLACK = {"l2": 4, "cosine": 4, "ip": 16}
"""Candidates kept beyond k: room for what float32 rounds, most in its products."""
CHUNK = 4_096
"""Residents of a cell that are compared at once."""
FINISHED = 256
"""Queries whose lists are finished at once."""
SAMPLE = 2_048


@dataclass(frozen=True)
class Residents:
    """Who lives where, and what it takes to enter a list.

    cells: rows of each cell. limits float32 [n], largest int32 [n]: distance and row of each list's
    k-th; -infinity for rows whose list isn't open to entries.
    """

    centres: Float32s
    cells: Lists
    limits: Float32s
    largest: Int32s


@dataclass(frozen=True)
class Queries:
    """rows int32 [q], ascending; visits int32 [q, most] cells, -1 unused; offered: whether they
    may enter the lists of residents. known int32 [q, any]: rows, ascending, then -1, that needn't
    be found; reach float32 [q]: nothing farther need be found."""

    rows: Int32s
    visits: Int32s
    offered: bool
    known: Int32s
    reach: Float32s

    @classmethod
    def of(cls, rows: Int32s, visits: Int32s, *, offered: bool) -> "Queries":
        """Queries that know nothing."""
        nothing = np.empty((len(rows), 0), np.int32)
        return cls(rows, visits, offered, nothing, np.full(len(rows), np.inf, np.float32))


@dataclass(frozen=True)
class Entries:
    """neighbours int32 [e] that enter the lists of `rows` int32 [e], at distances float32 [e].

    Sorted by (row, distance, neighbour).
    """

    rows: Int32s
    neighbours: Int32s
    distances: Float32s


@dataclass(frozen=True)
class _Unit:
    """Some residents of a cell and all its visitors, by their place among the queries."""

    cell: int
    members: Int32s
    visitors: Int32s


@dataclass(frozen=True)
class _Tiles:
    """How a tile is computed: vectors are multiplied by `scale`; `longest`: for inner products, the
    scaled length of the longest resident."""

    scale: np.float32
    longest: np.float32


def visited(
    rows: Rows, residents: Residents, queries: Queries, k: int, *, threads: int
) -> tuple[Int32s, Float32s, Entries]:
    """Lists [q, k] of the queries, by (distance, row), -1 and infinity where too few were met.

    And the entries into residents' lists. What is a little farther than a query's reach may be in
    its list. Cost: (residents of the visited cells) d per query; memory: q (k + 4) places (16 by
    inner products), a chunk of a cell per thread, and the entries.
    """
    units = _units(residents, queries)
    tiles = _tiles(rows, residents)
    lists = _begun_lists(queries, k + SLACK[rows.space], tiles, rows.space)
    none = np.empty(0, np.int32)
    found = [Entries(none, none, np.empty(0, np.float32))] * (len(units) + 1)

    def one(number: int) -> None:
        found[number] = _met(rows, residents, queries, units[number], tiles, lists)

    run_parallel(one, range(len(units)), threads)
    finished = _finished(rows, lists, queries.rows, k, threads)
    return *finished, together(found, len(residents.limits))


def _begun_lists(queries: Queries, places: int, tiles: _Tiles, space: SpaceName) -> NearLists:
    """Lists without entries, whose empty places are as far as is to be looked."""
    lists = empty_lists(len(queries.rows), places)
    if space == "ip":
        return lists
    reach = queries.reach.astype(np.float64)
    squared = (reach * reach if space == "l2" else 2 * reach) * np.float64(tiles.scale) ** 2
    lists.squared[:] = squared[:, None]
    lists.limits[:] = squared
    return lists


def together(parts: list[Entries], n: int) -> Entries:
    """Entries into the lists of rows 0..n-1 in their order.

    Each part is sorted by (distance, neighbour), and all entries of a row are in one part.
    """
    rows, neighbours, distances = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in Entries.__dataclass_fields__
    )
    order = lists_by(rows, np.arange(len(rows), dtype=np.int32), n).values
    return Entries(rows[order], neighbours[order], distances[order])


def _units(residents: Residents, queries: Queries) -> list[_Unit]:
    who, place = np.nonzero(queries.visits >= 0)
    by_cell = lists_by(queries.visits[who, place], who.astype(np.int32), len(residents.centres))
    return [
        _Unit(cell, residents.cells[cell][first : first + CHUNK], by_cell[cell])
        for cell in np.flatnonzero(by_cell.sizes).tolist()
        for first in range(0, int(residents.cells.sizes[cell]), CHUNK)
    ]


def _tiles(rows: Rows, residents: Residents) -> _Tiles:
    live = residents.cells.values
    some = live[:: max(1, len(live) // SAMPLE)]
    scale = scale_for(rows.take(some), np.arange(len(some)))
    if rows.space != "ip":
        return _Tiles(scale, np.float32(0))
    return _Tiles(scale, np.float32(_longest(rows, live, scale)))


def _longest(rows: Rows, part: Int32s, scale: np.float32) -> float:
    """The largest scaled length of some vectors."""
    blocks = (rows.take(part[first : first + CHUNK]) for first in range(0, len(part), CHUNK))
    return max((float(np.linalg.norm(it * scale, axis=1).max()) for it in blocks), default=0.0)


def _met(
    rows: Rows, residents: Residents, queries: Queries, unit: _Unit, tiles: _Tiles,
    lists: NearLists,
) -> Entries:  # fmt: skip
    own = queries.rows[unit.visitors]
    vectors = frozen(rows.take(np.concatenate([unit.members, own])))
    d, size, places = vectors.shape[1], len(unit.members), buffer_places(lists.k)
    if rows.space == "ip":
        width = padded(size)
        entered, neighbours, distances = meet_products(
            vectors, unit.members, unit.visitors, own, queries.offered, queries.known,
            tiles.scale, tiles.longest, residents.limits, residents.largest,
            aligned(width * d), aligned(width), aligned(ROWS * d), aligned(ROWS * width),
            places, lists.points, lists.squared, lists.limits, lists.locks,
        )  # fmt: skip
    else:
        columns = room_for_columns(size, d)
        entered, neighbours, distances = meet(
            rows.space == "cosine",
            vectors, unit.members, unit.visitors, own, queries.offered, queries.known,
            residents.centres[unit.cell], tiles.scale, residents.limits, residents.largest,
            room_for_rows(ROWS, d), columns, whole_aligned(ROWS * len(columns.norms)),
            places, lists.points, lists.squared, lists.limits, lists.locks,
        )  # fmt: skip
    order = np.lexsort((neighbours, distances))
    return Entries(entered[order], neighbours[order], distances[order])


def _finished(
    rows: Rows, lists: NearLists, own: Int32s, k: int, threads: int
) -> tuple[Int32s, Float32s]:
    neighbours = np.empty((len(own), k), np.int32)
    distances = np.empty((len(own), k), np.float32)

    def some(first: int) -> None:
        part = slice(first, first + FINISHED)
        finish_lists(
            rows.old, rows.new, rows.place, KINDS[rows.space],
            own[part], lists.points[part], neighbours[part], distances[part],
        )  # fmt: skip

    run_parallel(some, range(0, len(own), FINISHED), threads)
    return neighbours, distances
