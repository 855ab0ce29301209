"""From a run, its vectors and a change to the delta: who must be searched, where, and what came.

Owns the order of the steps and who is searched; how is in search.py, the numerics in visit.py.
Files of runs and matrices are opened by the caller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.plan import RESERVE
from index_build.selfjoin.cells import lists_by
from index_build.update.apply import lists_at
from index_build.update.base import Base
from index_build.update.cells import (
    REMOVED,
    Ends,
    Reach,
    UpdateCells,
    at_training,
    homes,
    reach_for,
    single,
    trained,
)
from index_build.update.change import Change
from index_build.update.delta import Delta
from index_build.update.known import Known, marked
from index_build.update.refill import members_left
from index_build.update.rows import Rows
from index_build.update.search import Search
from index_build.update.truth import kth_distances
from index_build.update.vectors import Patch
from index_build.update.visit import Entries, Residents
from nearfield.errors import InputRejected, QualityGate
from nearfield.neighbours import EMPTY
from nearfield.run import RunConfig
from nearfield.space import Int32s, prepared

SAMPLE = 200
ERRORS = 3
"""By two, one update in forty would be refused by chance alone."""


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
    ends = Ends(home, base.config.columns, seed=base.config.seed, reserve=0)
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


def computed_delta(base: Base, change: Change, cells: UpdateCells, patch: Patch) -> Delta:
    """Everything that the change does to the matrix. patch: what it does to the vector set.

    Cost: (new + changed + lists left with fewer than k members) x (residents of the cells that they
    visit) x d; with removed or changed recordings also one look at every list.
    """
    columns = check_size(base.config, change)
    known = cells.known(base.neighbours, base.distances)
    rows = Rows(base.vectors.vectors, change.rows, patch.vectors, base.config.space)
    own_homes = homes(
        prepared(patch.vectors, base.config.space), cells.centres, threads=base.threads
    )
    home = np.full(change.n, REMOVED, np.int32)
    home[: base.n] = cells.home
    home[change.rows] = own_homes
    home[change.removed] = REMOVED
    away = marked(change.n, change.gone, change.rows)
    search = Search(
        base, known, rows, _residents(change, cells, home), away, columns,
        min(columns + RESERVE, change.n - len(change.removed) - 1), _reach(base, cells, rows),
    )  # fmt: skip
    near, far, entries = search.new(change.rows)
    entered = np.bincount(entries.rows, minlength=change.n)
    lost, short = _lists_that_lost(base, known, away, entered, columns)
    entries = _without(entries, short, change.n)
    refilled = search.refilled(short)
    listed = np.concatenate([change.rows, short])
    order = np.argsort(listed)
    return Delta(
        rows=patch.rows,
        vectors=patch.vectors,
        recorded=patch.recorded,
        recordings=patch.recordings,
        removed=patch.removed,
        listed=listed[order],
        neighbours=np.concatenate([near, refilled[0]])[order],
        distances=np.concatenate([far, refilled[1]])[order],
        lost=lost,
        entries=entries,
        homes=own_homes,
        facts={
            "n": change.n,
            "columns": columns,
            **patch.counts,
            "gone": change.gone.tolist(),
            "refilled": len(short),
            "lost": len(lost) + len(short),
            "entered": int(np.count_nonzero(np.diff(entries.rows, prepend=-1))),
            "entries": len(entries.rows),
            "ratio": round(search.reach.ratio, 3),
            "coverage": round(search.reach.coverage, 5),
            "refill_ratio": round(search.reach.refill, 3),
        },
    )


def sampled_recall(base: Base, cells: UpdateCells, delta: Delta, *, seed: int) -> float:
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
    _, found = lists_at(cells.known(base.neighbours, base.distances), delta, chosen)
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


def ends_after(cells: UpdateCells, delta: Delta, *, seed: int) -> Ends:
    """What the next update needs, to be noted of the lists as they are after this one."""
    n, old = int(delta.facts["n"]), len(cells.home)
    home = np.full(n, REMOVED, np.int32)
    home[:old] = cells.home
    home[delta.rows] = delta.homes
    home[delta.removed] = REMOVED
    limits, largest = np.full(n, -np.inf, np.float32), np.full(n, EMPTY, np.int32)
    limits[:old], largest[:old] = cells.limits, cells.largest
    limits[delta.rows] = -np.inf
    return Ends(home, int(delta.facts["columns"]), seed=seed, limits=(limits, largest))


def facts_after(cells: UpdateCells, delta: Delta) -> dict[str, Any]:
    """The facts of the cells after an update: how many recordings changed is counted on."""
    changed = int(cells.facts.get("changed", 0)) + int(delta.facts["changed"])
    return cells.facts | {"changed": changed}


def _lists_that_lost(
    base: Base, known: Known, away: NDArray[np.bool_], entered: NDArray[np.integer], columns: int
) -> tuple[Int32s, Int32s]:
    """Old rows that stay and whose list lost members, ascending: those for which the reserve, and
    the `entered` [n] ones, make up, and those that must be searched."""
    stays = ~away[: base.n]
    stays[base.vectors.removed] = False
    none = np.empty(0, np.int32)
    if base.config.columns != columns:
        return none, np.flatnonzero(stays).astype(np.int32)
    if not away[: base.n].any():
        return none, none
    left, lost = members_left(known, away, threads=base.threads)
    lost &= stays
    short = lost & (left + entered[: base.n] < columns)
    return np.flatnonzero(lost & ~short).astype(np.int32), np.flatnonzero(short).astype(np.int32)


def _without(entries: Entries, rows: Int32s, n: int) -> Entries:
    """Entries into the lists of other rows than these."""
    if not len(rows):
        return entries
    chosen = ~marked(n, rows)[entries.rows]
    return Entries(entries.rows[chosen], entries.neighbours[chosen], entries.distances[chosen])


def _residents(change: Change, cells: UpdateCells, home: Int32s) -> Residents:
    limits = np.full(change.n, -np.inf, np.float32)
    limits[: len(cells.limits)] = cells.limits
    largest = np.full(change.n, EMPTY, np.int32)
    largest[: len(cells.largest)] = cells.largest
    for shut in (change.rows, change.removed):
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
