"""From a run, its vectors and a change to the delta: who must be searched, where, and what came.

Owns the order of the steps and what is searched how. The numerics are in visit.py; files of runs
and matrices are opened by the caller.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import lists_by
from index_build.update.apply import lists_at
from index_build.update.cells import (
    REMOVED,
    Ends,
    Reach,
    UpdateCells,
    at_training,
    homes,
    most_visits,
    reach_for,
    single,
    trained,
    visits,
)
from index_build.update.change import Change
from index_build.update.delta import Delta
from index_build.update.refill import (
    joined_lists,
    kept_members,
    lists_that_lost,
    reaches,
    without_members,
)
from index_build.update.rows import Rows
from index_build.update.truth import kth_distances
from index_build.update.visit import Entries, Queries, Residents, visited
from nearfield.distances import sort_lists
from nearfield.errors import InputRejected, QualityGate
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.run import RunConfig
from nearfield.space import Float32s, Int32s, prepared
from nearfield.vectorset import ID_COLUMN, VectorSet

SAMPLE = 200
ERRORS = 3
"""By two, one update in forty would be refused by chance alone."""
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
class Base:
    """The run that is extended: neighbours, distances [n, columns], sliceable; `estimate`: recall.

    `exact`: every pair was compared when it was built, and will be in the update.
    """

    config: RunConfig
    vectors: VectorSet
    neighbours: Any
    distances: Any
    exact: bool
    estimate: float
    threads: int

    @property
    def n(self) -> int:
        """Rows before."""
        return self.config.n


def prepared_cells(base: Base) -> UpdateCells:
    """Cells trained on the run as it is. Cost: as the self-join's plan and partition, and a look
    at every list's last place."""
    live = np.ones(base.n, bool)
    live[base.vectors.removed] = False
    if base.exact or base.config.space == "ip":
        centres, home = single(base.n, base.config.d)
    else:
        ready = prepared(np.asarray(base.vectors.vectors), base.config.space)
        centres, home = trained(ready, base.config.k, seed=base.config.seed, threads=base.threads)
    home[~live] = REMOVED
    ends = Ends(home, base.config.columns, seed=base.config.seed)
    ends.read(base.neighbours, base.distances)
    return ends.cells(centres, at_training(home, len(centres)))


def check_size(config: RunConfig, change: Change) -> int:
    """Places per list afterwards; raises `InputRejected` where too few recordings are left."""
    columns = min(config.k, change.n - 1)
    left = change.n - len(change.removed)
    if left <= columns:
        raise InputRejected(
            f"{left:,} recordings would be left, too few for lists of {columns}: build a new run"
            " from those that stay"
        )
    return columns


def computed_delta(
    base: Base,
    change: Change,
    cells: UpdateCells,
    add: VectorSet | None,
) -> Delta:
    """Everything that the change does to the matrix.

    Cost: (new + changed + lists that lost a member) x (residents of the cells that they visit) x d;
    with removed or changed recordings also one look at every list.
    """
    columns = check_size(base.config, change)
    new = np.empty((0, base.config.d), np.float32)
    if add is not None:
        new = np.ascontiguousarray(add.vectors[change.source])
    rows = Rows(base.vectors.vectors, change.rows, new, base.config.space)
    away = _away(base, change)
    affected = _affected(base, away, columns)
    own_homes = homes(prepared(new, base.config.space), cells.centres, threads=base.threads)
    home = np.full(change.n, REMOVED, np.int32)
    home[: base.n] = cells.home
    home[change.rows] = own_homes
    home[change.removed] = REMOVED
    residents = _residents(change, cells, home, affected)
    queries = np.union1d(change.rows, affected).astype(np.int32)
    reach = _reach(base, cells, rows) if len(queries) else Reach()
    search = _Search(base, rows, residents, change, away, columns, reach)
    neighbours, distances, entries = search.all(queries, np.flatnonzero(home >= 0))
    recordings = base.vectors.recordings.slice(0, 0)
    if add is not None:
        recordings = add.recordings.take(change.source)
        # without ids of their own they are numbered on
        at = recordings.column_names.index(ID_COLUMN)
        recordings = recordings.set_column(at, ID_COLUMN, change.ids)
    return Delta(
        rows=change.rows,
        vectors=new,
        recordings=recordings,
        removed=change.removed,
        listed=queries,
        neighbours=neighbours,
        distances=distances,
        entries=entries,
        homes=own_homes,
        facts={
            "n": change.n,
            "columns": columns,
            "added": change.added,
            "changed": change.changed,
            "returned": change.returned,
            "unchanged": change.unchanged,
            "gone": change.gone.tolist(),
            "refilled": len(affected),
            "entered": int(np.count_nonzero(np.diff(entries.rows, prepend=-1))),
            "entries": len(entries.rows),
            "ratio": round(reach.ratio, 3),
            "coverage": round(reach.coverage, 5),
            "refill_ratio": round(reach.refill, 3),
        },
    )


def sampled_recall(base: Base, delta: Delta, *, seed: int) -> float:
    """Recall of the updated lists on a seeded sample of rows, by all distances to what is left.

    Half the sample are rows whose list the update touched. Raises `QualityGate` when it is below
    what the run was built for and, by more than `ERRORS` sampling errors, below the run's own.
    """
    rows = Rows(base.vectors.vectors, delta.rows, delta.vectors, base.config.space)
    live = np.ones(int(delta.facts["n"]), bool)
    live[delta.removed] = False
    random = np.random.default_rng((seed, 3))
    touched = np.setdiff1d(delta.changed_rows, delta.removed)
    drawn = [
        random.choice(pool, min(SAMPLE // 2, len(pool)), replace=False)
        for pool in (touched, np.flatnonzero(live))
        if len(pool)
    ]
    chosen = np.unique(np.concatenate(drawn)).astype(np.int32)
    _, found = lists_at(base.neighbours, base.distances, delta, chosen)
    kth = kth_distances(rows, chosen, live, found, threads=base.threads)
    shares = (found <= kth[:, None] + 1e-6 * np.abs(kth[:, None])).mean(axis=1)
    recall, error = float(np.mean(shares)), float(np.std(shares) / len(shares) ** 0.5)
    if recall < base.config.recall and recall + ERRORS * error < base.estimate:
        raise QualityGate(
            f"the updated lists reach a recall of {recall:.4f} on {len(chosen)} rows, below the"
            f" {base.config.recall} asked and the {base.estimate:.4f} of the run that is extended."
            " Build a new run: nearfield build VECTORS --out RUN"
        )
    return recall


def updated_home(cells: UpdateCells, delta: Delta) -> Int32s:
    """The cell of each row after the update, `REMOVED` for those that are gone."""
    home = np.full(int(delta.facts["n"]), REMOVED, np.int32)
    home[: len(cells.home)] = cells.home
    home[delta.rows] = delta.homes
    home[delta.removed] = REMOVED
    return home


@dataclass(frozen=True)
class _Search:
    """The search of one update."""

    base: Base
    rows: Rows
    residents: Residents
    change: Change
    away: NDArray[np.bool_]
    columns: int
    reach: Reach

    def all(self, queries: Int32s, live: NDArray[np.integer]) -> tuple[Int32s, Float32s, Entries]:
        """Lists [q, columns] of the queries and the entries of the new ones among them."""
        neighbours = np.empty((len(queries), self.columns), np.int32)
        distances = np.empty((len(queries), self.columns), np.float32)
        entries, there = [], live.astype(np.int32)
        for first in range(0, len(queries), QUERIES):
            part = queries[first : first + QUERIES]
            offered = np.isin(part, self.change.rows)
            near, far = neighbours[first : first + QUERIES], distances[first : first + QUERIES]
            near[offered], far[offered], entered = self._new(part[offered])
            near[~offered], far[~offered] = self._refilled(part[~offered])
            short = np.flatnonzero((near == EMPTY).any(axis=1))
            if self.base.exact:
                short = np.arange(len(part))
            if len(short):
                near[short], far[short] = _exact(
                    self.rows, part[short], there, self.columns, self.base
                )
            entries.append(entered)
        return neighbours, distances, _sorted(entries)

    def _new(self, queries: Int32s) -> tuple[Int32s, Float32s, Entries]:
        """Lists of recordings with new vectors, and which other lists they enter."""
        asked = Queries.of(queries, self._places(queries, self.reach.ratio), offered=True)
        return visited(self.rows, self.residents, asked, self.columns, threads=self.base.threads)

    def _refilled(self, queries: Int32s) -> tuple[Int32s, Float32s]:
        """Lists that lost a member, with what comes in its place."""
        if self.base.exact or not len(queries):
            # every pair is compared for them anyway
            return without_members(len(queries)).padded(self.columns)
        kept = without_members(len(queries))
        if self.base.config.columns == self.columns:
            lists = self.base.neighbours, self.base.distances
            kept = kept_members(lists, queries, self.away, threads=self.base.threads)
        near, far = kept.padded(self.columns)
        places = self._places(queries, self.reach.refill)
        few = kept.places <= FEW
        for some, most in ((few, FEW + MISSED), (None, self.columns)):
            # what didn't find enough near by is searched once more, without a bound
            chosen = np.flatnonzero((near == EMPTY).any(axis=1) if some is None else some)
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
            near[chosen], far[chosen] = joined_lists(part, (new, new_far), self.columns)
        return near, far

    def _places(self, queries: Int32s, ratio: float) -> Int32s:
        """The cells that each of the queries visits."""
        if not len(queries):
            return np.empty((0, most_visits(self.residents.centres)), np.int32)
        vectors = self.rows.take(queries, threads=self.base.threads)
        return visits(vectors, self.residents.centres, ratio, threads=self.base.threads)


def _away(base: Base, change: Change) -> NDArray[np.bool_]:
    """Which rows leave the lists that name them: removed now, or with another vector."""
    away = np.zeros(change.n, bool)
    away[change.gone] = True
    away[change.rows[change.rows < base.n]] = True
    return away


def _affected(base: Base, away: NDArray[np.bool_], columns: int) -> Int32s:
    """Old rows that stay and whose list lost a member, or has too few places, ascending."""
    stays = ~away[: base.n]
    stays[base.vectors.removed] = False
    if base.config.columns == columns:
        if not away.any():
            return np.empty(0, np.int32)
        stays &= lists_that_lost(base.neighbours, away, threads=base.threads)
    return np.flatnonzero(stays).astype(np.int32)


def _residents(change: Change, cells: UpdateCells, home: Int32s, affected: Int32s) -> Residents:
    limits = np.full(change.n, -np.inf, np.float32)
    limits[: len(cells.limits)] = cells.limits
    largest = np.full(change.n, EMPTY, np.int32)
    largest[: len(cells.largest)] = cells.largest
    for shut in (change.rows, change.removed, affected):
        limits[shut] = -np.inf
    live = np.flatnonzero(home >= 0).astype(np.int32)
    return Residents(cells.centres, lists_by(home[live], live, len(cells.centres)), limits, largest)


def _reach(base: Base, cells: UpdateCells, rows: Rows) -> Reach:
    """How far to visit: known pairs of the run must meet nearly always."""
    old = Rows(base.vectors.vectors, np.empty(0, np.int32), rows.new[:0], base.config.space)
    listed = old.take(cells.listed.ravel(), threads=base.threads)
    return reach_for(
        1 - min(max(base.config.recall, base.estimate), 0.9999),
        cells.centres,
        old.take(cells.sample),
        listed.reshape(*cells.listed.shape, -1),
        threads=base.threads,
    )


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
