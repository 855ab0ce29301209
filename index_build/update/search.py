"""The searches of an update: of recordings with new vectors, and of lists that lost members.

Owns how far is looked, in how many goes, and what is compared with everything where cells don't
give enough. Refuses to decide who is searched.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.update.base import Base
from index_build.update.cells import Reach, most_visits, visits
from index_build.update.known import Known, nothing_known
from index_build.update.refill import joined_lists, kept_members, reaches, without_members
from index_build.update.rows import Rows
from index_build.update.visit import Entries, Queries, Residents, visited
from nearfield.distances import sort_lists
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

QUERIES = 100_000
"""Rows searched at once: 2 x 4 bytes x (k + 16) each."""
FEW = 16
"""A list that lost no more members than this is searched near by first."""
MISSED = 8
"""Finds beyond these that it has room for: what the build had missed in it."""
SPARE = 8
"""So far is looked that twice as many as were lost, and so many, would be found by the density
around a list, which isn't known well."""


@dataclass(frozen=True)
class Search:
    """The search of one update: lists of `width` places, of which `columns` must be filled."""

    base: Base
    known: Known
    rows: Rows
    residents: Residents
    away: NDArray[np.bool_]
    columns: int
    width: int
    reach: Reach

    def new(self, queries: Int32s) -> tuple[Int32s, Float32s, Entries]:
        """Lists [q, width] of recordings with new vectors, and which other lists they enter."""
        near, far = nothing_known(len(queries), self.width)
        entries = []
        for part in _parts(len(queries)):
            asked = Queries.of(
                queries[part], self._places(queries[part], self.reach.ratio), offered=True
            )
            near[part], far[part], entered = visited(
                self.rows, self.residents, asked, self.width, threads=self.base.threads
            )
            self._complete(queries[part], near[part], far[part])
            entries.append(entered)
        return near, far, _sorted(entries)

    def refilled(self, queries: Int32s) -> tuple[Int32s, Float32s]:
        """Lists [q, width] that lost members, with what comes in their place."""
        near, far = nothing_known(len(queries), self.width)
        for part in _parts(len(queries)):
            # every pair is compared for exact ones anyway
            if not self.base.exact:
                near[part], far[part] = self._refilled(queries[part])
            self._complete(queries[part], near[part], far[part])
        return near, far

    def _refilled(self, queries: Int32s) -> tuple[Int32s, Float32s]:
        kept = without_members(len(queries))
        if self.base.config.columns == self.columns:
            kept = kept_members(
                self.known, queries, self.away, self.columns, threads=self.base.threads
            )
        near, far = kept.padded(self.width)
        places = self._places(queries, self.reach.refill)
        few = kept.places <= FEW
        for some, most in ((few, FEW + MISSED), (None, self.width)):
            # what didn't find enough near by is searched once more, without a bound
            chosen = np.flatnonzero(self._lacks(near) if some is None else some)
            if not len(chosen):
                continue
            part = kept.of(chosen)
            reach = np.full(len(chosen), np.inf, np.float32)
            if some is not None:
                reach = reaches(part, 2 * part.places + SPARE, self.base.config.space)
            asked = Queries(queries[chosen], places[chosen], False, part.known, reach)
            new, new_far, _ = visited(
                self.rows, self.residents, asked, most, threads=self.base.threads
            )
            near[chosen], far[chosen] = joined_lists(part, (new, new_far), self.width)
        return near, far

    def _complete(self, queries: Int32s, near: Int32s, far: Float32s) -> None:
        """Compare everything for lists that lack members, and for all of an exact run; in place."""
        chosen = np.flatnonzero(self._lacks(near) | self.base.exact)
        if len(chosen):
            live = np.sort(self.residents.cells.values)
            near[chosen], far[chosen] = _exact(
                self.rows, queries[chosen], live, self.width, self.base
            )

    def _lacks(self, near: Int32s) -> NDArray[np.bool_]:
        return (near[:, : self.columns] == EMPTY).any(axis=1)

    def _places(self, queries: Int32s, ratio: float) -> Int32s:
        """The cells that each of the queries visits."""
        if not len(queries):
            return np.empty((0, most_visits(self.residents.centres)), np.int32)
        vectors = self.rows.take(queries, threads=self.base.threads)
        return visits(vectors, self.residents.centres, ratio, threads=self.base.threads)


def _parts(queries: int) -> Iterator[slice]:
    return (slice(first, first + QUERIES) for first in range(0, queries, QUERIES))


def _exact(
    rows: Rows, queries: Int32s, live: Int32s, k: int, base: Base
) -> tuple[Int32s, Float32s]:
    """Exact lists of the queries among the live rows.

    Memory: the live vectors, unless all old ones are live as they are, under l2 or ip.
    """
    space, asked = base.config.space, rows.take(queries)
    added = rows.rows[rows.rows >= base.n]
    if space == "cosine" or len(added) < len(rows.rows) or len(live) < base.n + len(added):
        own = np.searchsorted(live, queries)
        near, far = exact_search(asked, rows.take(live), k, space=space, own_rows=own)
        return live[near], far
    # the file of the old vectors is searched where it lies
    parts = [exact_search(asked, rows.old, k + 1, space=space)]
    if len(added):
        near, far = exact_search(asked, rows.new, k + 1, space=space)
        parts.append((added[near], far))
    near, far = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    far[near == queries[:, None]] = np.inf
    near, far = sort_lists(near, far)
    return near[:, :k], far[:, :k]


def _sorted(parts: list[Entries]) -> Entries:
    """Entries of several searches in their order."""
    if len(parts) == 1:
        return parts[0]
    none = Entries(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    rows, neighbours, distances = (
        np.concatenate([getattr(part, name) for part in (none, *parts)])
        for name in Entries.__dataclass_fields__
    )
    order = np.lexsort((neighbours, distances, rows))
    return Entries(rows[order], neighbours[order], distances[order])
