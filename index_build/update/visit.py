"""New recordings against those in the cells that they visit: both sides' finds.

Pure numerics. A query visits cells; in each it is compared with all residents. It keeps its own
nearest, and every resident whose k-th distance it beats is noted, named by the query or not.
Products propose, distances by the definition decide, so nothing depends on their rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index_build.selfjoin.cells import Lists, lists_by
from nearfield.distances import list_distances, sort_lists
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

SLACK = 16
"""Candidates kept beyond k: room for the rounding of the float32 products."""
CHUNK, VISITORS = 8_192, 2_048
"""Residents and visitors of a cell that are compared at once."""
CHECKED = 65_536

Take = Callable[[Int32s], Float32s]
"""Prepared vectors float32 [m, d] of given rows."""


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
    """rows int32 [q], ascending; visits int32 [q, most] cells, -1 unused; offered bool [q]: may
    enter the lists of residents."""

    rows: Int32s
    visits: Int32s
    offered: NDArray[np.bool_]


@dataclass(frozen=True)
class Entries:
    """neighbours int32 [e] that enter the lists of `rows` int32 [e], at distances float32 [e].

    Sorted by (row, distance, neighbour).
    """

    rows: Int32s
    neighbours: Int32s
    distances: Float32s


def visited(
    take: Take, residents: Residents, queries: Queries, k: int, space: SpaceName
) -> tuple[Int32s, Float32s, Entries]:
    """Lists [q, k] of the queries, by (distance, row), -1 and infinity where too few were met.

    And the entries into residents' lists. Cost: (residents of the visited cells) d per query;
    memory: q (k + 16) places, one cell, and the entries.
    """
    heap = _Heaps.empty(len(queries.rows), k + SLACK)
    found_rows: list[Int32s] = [np.empty(0, np.int32)]
    found_neighbours: list[Int32s] = [np.empty(0, np.int32)]
    by_cell = _visitors(queries.visits, len(residents.centres))
    # its threads would spin between the many small products, in the way of the selection's
    with threadpool_limits(1, user_api="blas"):
        for cell in np.flatnonzero(by_cell.sizes):
            centre = residents.centres[cell] * np.float32(space != "ip")
            members, everyone = residents.cells[int(cell)], by_cell[int(cell)]
            for start in range(0, len(everyone), VISITORS):
                visitors = everyone[start : start + VISITORS]
                vectors = take(queries.rows[visitors]) - centre
                for first in range(0, len(members), CHUNK):
                    chunk = members[first : first + CHUNK]
                    block = _Block(vectors, take(chunk) - centre, space)
                    heap.offer(block, visitors, chunk, queries.rows)
                    rows, neighbours = _entering(
                        block, chunk, visitors, residents.limits, queries, space
                    )
                    found_rows.append(rows)
                    found_neighbours.append(neighbours)
    lists = _final(take, heap.points, queries.rows, k, space)
    entries = _checked(
        take, np.concatenate(found_rows), np.concatenate(found_neighbours), residents, space
    )
    return *lists, entries


class _Block:
    """Scores of visitors [m] against residents [r]: norms + norms - factor * products."""

    def __init__(self, visitors: Float32s, residents: Float32s, space: SpaceName) -> None:
        self.products = visitors @ residents.T
        plain = space == "ip"
        self.factor = np.float32(1 if plain else 2)
        lengths = [np.einsum("ij,ij->i", side, side) for side in (visitors, residents)]
        self.rows, self.columns = (np.zeros_like(it) if plain else it for it in lengths)
        unit = np.finfo(np.float32).eps * np.float32(visitors.shape[1] + 4)
        self.doubt = unit * (lengths[0].max(initial=0) + lengths[1])


@dataclass(frozen=True)
class _Heaps:
    """Per query a max-heap of the nearest so far, float32 and int32 [q, places]."""

    scores: Float32s
    points: Int32s

    @classmethod
    def empty(cls, queries: int, places: int) -> "_Heaps":
        return cls(
            np.full((queries, places), np.inf, np.float32),
            np.full((queries, places), EMPTY, np.int32),
        )

    def offer(self, block: _Block, visitors: Int32s, members: Int32s, own: Int32s) -> None:
        _offer(
            block.products, block.rows, block.columns, block.factor, visitors, members, own,
            self.scores, self.points,
        )  # fmt: skip


def _visitors(visits: Int32s, cells: int) -> Lists:
    who, place = np.nonzero(visits >= 0)
    return lists_by(visits[who, place], who.astype(np.int32), cells)


def _entering(
    block: _Block, chunk: Int32s, visitors: Int32s, limits: Float32s, queries: Queries,
    space: SpaceName,
) -> tuple[Int32s, Int32s]:  # fmt: skip
    offered = np.flatnonzero(queries.offered[visitors])
    limit = limits[chunk].astype(np.float64)
    open_to = np.flatnonzero(limit > -np.inf)
    if not len(offered) or not len(open_to):
        return np.empty(0, np.int32), np.empty(0, np.int32)
    squared = {"l2": limit * limit, "cosine": 2 * limit, "ip": limit}[space]
    bound = (squared + block.doubt * 2 - block.columns).astype(np.float32)
    products = block.products[offered] if len(offered) < len(visitors) else block.products
    near = block.rows[offered][:, None] - block.factor * products <= bound
    near &= (limit > -np.inf)[None, :]
    i, j = np.nonzero(near)
    return chunk[j], queries.rows[visitors[offered[i]]]


def _final(
    take: Take, points: Int32s, rows: Int32s, k: int, space: SpaceName
) -> tuple[Int32s, Float32s]:
    neighbours = np.empty((len(rows), k), np.int32)
    distances = np.empty((len(rows), k), np.float32)
    step = max(1, CHECKED // 16)
    for first in range(0, len(rows), step):
        part = points[first : first + step]
        listed, local = np.unique(part, return_inverse=True)
        places: Int32s = local.reshape(part.shape).astype(np.int32)
        places -= np.int32(listed[0] == EMPTY)
        vectors = take(listed[listed != EMPTY])
        far = list_distances(take(rows[first : first + step]), vectors, places, space)
        found = sort_lists(part, far)
        neighbours[first : first + step] = found[0][:, :k]
        distances[first : first + step] = found[1][:, :k]
    return neighbours, distances


def _checked(
    take: Take, rows: Int32s, neighbours: Int32s, residents: Residents, space: SpaceName
) -> Entries:
    """The entries whose true (distance, row) beats the k-th of the list that they enter."""
    order = np.lexsort((neighbours, rows))
    rows, neighbours = rows[order], neighbours[order]
    distances = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), CHECKED):
        part = slice(first, first + CHECKED)
        owners, own = np.unique(rows[part], return_inverse=True)
        others, other = np.unique(neighbours[part], return_inverse=True)
        distances[part] = _pairs(
            take(owners), take(others), own.astype(np.int32), other.astype(np.int32), space
        )
    limits, largest = residents.limits[rows], residents.largest[rows]
    enters = (distances < limits) | ((distances == limits) & (neighbours < largest))
    rows, neighbours, distances = rows[enters], neighbours[enters], distances[enters]
    order = np.lexsort((neighbours, distances, rows))
    return Entries(rows[order], neighbours[order], distances[order])


def _pairs(
    left: Float32s, right: Float32s, own: Int32s, other: Int32s, space: SpaceName
) -> Float32s:
    """Distances of pairs (left[own], right[other]); the pairs of one owner stand together."""
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    width = int(np.diff(np.append(starts, len(own))).max(initial=0))
    table = np.full((len(starts), width), EMPTY, np.int32)
    within = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    line = np.cumsum(np.diff(own, prepend=-1) != 0) - 1
    table[line, within] = other
    return list_distances(left[own[starts]], right, table, space)[line, within]


@numba.njit(parallel=True, cache=True)
def _offer(  # noqa: PLR0913, PLR0917  (a compiled kernel takes arrays, not objects)
    products: Float32s, row_norms: Float32s, column_norms: Float32s, factor: np.float32,
    visitors: Int32s, members: Int32s, own: Int32s, scores: Float32s, points: Int32s,
) -> None:  # fmt: skip
    places = scores.shape[1]
    for i in numba.prange(len(visitors)):
        query = visitors[i]
        largest = scores[query, 0]
        for j in range(len(members)):
            score = row_norms[i] + column_norms[j] - factor * products[i, j]
            if score >= largest or members[j] == own[query]:
                continue
            hole = 0
            while True:
                child = 2 * hole + 1
                if child >= places:
                    break
                if child + 1 < places and scores[query, child + 1] > scores[query, child]:
                    child += 1
                if scores[query, child] <= score:
                    break
                scores[query, hole] = scores[query, child]
                points[query, hole] = points[query, child]
                hole = child
            scores[query, hole] = score
            points[query, hole] = members[j]
            largest = scores[query, 0]
