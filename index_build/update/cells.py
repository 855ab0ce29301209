"""The cells of an update: a partition kept beside the run, so that no update has to train it again.

    RUN/cells/  centres.npy float32 [c, d]   home.npy int32 [n] (-1: removed)
                limits.npy float32 [n]       largest.npy int32 [n]: how far each list is complete
                reserve.npy int32 [n, r]     reserve_distances.npy: what is known beyond the k-th
                sample.npy int32 [s]         listed.npy int32 [s, m]: some rows, some of their lists
                manifest.json                kind update cells; its fingerprint is the matrix'

Owns these files, and the choice of how many cells a recording visits. Exact runs have one cell.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.plan import RESERVE
from index_build.selfjoin import points_of
from index_build.selfjoin.nearest import NearCells, near_cells, panel_of
from index_build.selfjoin.plan import MOST_CELLS, cell_size
from index_build.selfjoin.train import trained_centres
from index_build.update.known import Known, scanned, within
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path
from nearfield.manifest import read_manifest, write_manifest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

KIND = "update cells"
FORMAT_VERSION = 3
ARRAYS = (
    *("centres", "home", "limits", "largest", "sample", "listed"),
    *("reserve", "reserve_distances"),
)
KEPT_LOSS = 0.75
"""Share of the run's own loss of recall that the cells of an update may add for what they find."""
SAMPLE = 200
PLACES = 32
"""Of each sampled list so many places, spread over it, are kept."""
RATIOS = np.linspace(1.0, 2.0, 51)
REMOVED = -1

Block = tuple[int, Int32s, Float32s]
Limits = tuple[Float32s, Int32s]
"""Distance and row, by row of the matrix."""


@dataclass(frozen=True)
class UpdateCells:
    """centres float32 [c, d]; home int32 [n]; limits float32 [n] and largest int32 [n]: up to
    there, by (distance, row), list and reserve hold all that was found; sample int32 [s], listed
    int32 [s, m]; reserve int32 and reserve_distances float32 [n, r], -1 and infinity where empty.

    `facts`: what `drift` compares with: live rows, and pairs per row, when the cells were trained.
    """

    centres: Float32s
    home: Int32s
    limits: Float32s
    largest: Int32s
    sample: Int32s
    listed: Int32s
    reserve: Int32s
    reserve_distances: Float32s
    facts: dict[str, Any]

    def known(self, neighbours: Any, distances: Any) -> Known:
        """The lists [n, columns] (sliceable) of the matrix that these are beside, with reserve."""
        return Known(neighbours, distances, self.reserve, self.reserve_distances)


class Ends:
    """What the next update needs of all lists, noted as they pass by, so that it reads none.

    home int32 [n] after the update, `REMOVED` for rows that are gone. The limits say how far each
    list was complete before: where a place of the reserve is free, it still is. Without them a
    list is complete as far as it goes.
    """

    def __init__(
        self, home: Int32s, columns: int, *, seed: int, reserve: int = RESERVE,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        """columns: places of a list, without its reserve, which has at most `reserve`."""
        self.home, self.columns = home, columns
        nowhere = np.full(len(home), -np.inf, np.float32), np.full(len(home), -1, np.int32)
        self.limits, self.largest = limits or nowhere
        self.reserve = np.full((len(home), reserve), EMPTY, np.int32)
        self.reserve_distances = np.full(self.reserve.shape, np.inf, np.float32)
        live = np.flatnonzero(home != REMOVED)
        random = np.random.default_rng((seed, 4))
        drawn = random.choice(live, min(SAMPLE, len(live)), replace=False)
        self.sample: Int32s = np.sort(drawn).astype(np.int32)
        self.places = np.unique(np.linspace(0, columns - 1, min(PLACES, columns)).astype(int))
        self.listed = np.empty((len(self.sample), len(self.places)), np.int32)

    def of(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks (first row, neighbours, distances), all rows, without their reserve."""
        for first, near, far in blocks:
            rows = slice(first, first + len(near))
            beyond = near.shape[1] - self.columns
            self.reserve[rows, :beyond] = near[:, self.columns :]
            self.reserve_distances[rows, :beyond] = far[:, self.columns :]
            self._complete(rows, near, far)
            low, high = within(self.sample, first, first + len(near))
            self.listed[low:high] = near[self.sample[low:high] - first][:, self.places]
            yield first, self._nearest(near), self._nearest(far)

    def _nearest(self, block: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(block[:, : self.columns])

    def _complete(self, rows: slice, near: Int32s, far: Float32s) -> None:
        """A full list ends with its last member, another where it ended or with a later one."""
        last = self.columns - 1 + np.count_nonzero(near[:, self.columns :] != EMPTY, axis=1)
        every = np.arange(len(near))
        limit, largest = far[every, last], near[every, last]
        before, before_largest = self.limits[rows], self.largest[rows]
        farther = (before > limit) | ((before == limit) & (before_largest > largest))
        stays = farther & (last < self.columns + self.reserve.shape[1] - 1)
        self.limits[rows] = np.where(stays, before, limit)
        self.largest[rows] = np.where(stays, before_largest, largest)

    def read(self, neighbours: Any, distances: Any) -> None:
        """Note them of lists [n, k] (sliceable) that were written before, without a reserve."""
        for rows in scanned(len(self.home)):
            deque(self.of([(rows.start, neighbours[rows], distances[rows])]), maxlen=0)

    def cells(self, centres: Float32s, facts: dict[str, Any]) -> UpdateCells:
        """The cells, once all blocks have passed."""
        self.limits[self.home == REMOVED] = -np.inf
        return UpdateCells(
            centres, self.home, self.limits, self.largest, self.sample, self.listed,
            self.reserve, self.reserve_distances, facts,
        )  # fmt: skip


@dataclass(frozen=True)
class Reach:
    """Recordings visit cells within `ratio` of their nearest, lists that are filled up again within
    `refill`. coverage: share of known pairs that the first of them meets."""

    ratio: float = 1.0
    coverage: float = 1.0
    refill: float = 1.0


@dataclass(frozen=True)
class Drift:
    """How far a run is from a fresh build. `due`: sentences that say why to rebuild, else empty."""

    live: int
    removed: int
    added: int
    pairs_growth: float
    due: tuple[str, ...]


def trained(vectors: Float32s, k: int, *, seed: int, threads: int) -> tuple[Float32s, Int32s]:
    """Centres and the home of each of the prepared vectors float32 [n, d].

    Cost as the self-join's own plan and partition.
    """
    points = points_of(vectors, np.arange(len(vectors), dtype=np.int32), seed)
    cells = max(1, len(vectors) // cell_size(len(vectors), k))
    centres = trained_centres(points, cells, seed=seed, threads=threads)
    return centres, homes(vectors, centres, threads=threads)


def single(n: int, d: int) -> tuple[Float32s, Int32s]:
    """One cell for everything."""
    return np.zeros((1, d), np.float32), np.zeros(n, np.int32)


def homes(vectors: Float32s, centres: Float32s, *, threads: int) -> Int32s:
    """The nearest centre of each prepared vector, int32 [m]."""
    if len(centres) == 1 or not len(vectors):
        return np.zeros(len(vectors), np.int32)
    return _near(vectors, centres, 1.0, 1, threads).home


def visits(vectors: Float32s, centres: Float32s, ratio: float, *, threads: int) -> Int32s:
    """The cells within `ratio` of each vector's nearest, int32 [m, most], -1 in unused places."""
    if len(centres) == 1 or not len(vectors):
        return np.zeros((len(vectors), most_visits(centres)), np.int32)
    return _near(vectors, centres, ratio, MOST_CELLS, threads).cells


def most_visits(centres: Float32s) -> int:
    """How many places `visits` has per vector."""
    return min(MOST_CELLS, len(centres))


def reach_for(
    loss: float, centres: Float32s, sample: Float32s, listed: Float32s, *, threads: int
) -> Reach:
    """How far to visit in a run that misses `loss` of the true neighbours.

    sample: float32 [m, d]; listed: float32 [m, k, d], their known neighbours. New recordings visit
    so far that of known pairs a share `KEPT_LOSS` of the loss doesn't meet, in the worse direction;
    lists that lost a member search so far that they miss no more than the run does.
    """
    if len(centres) == 1:
        return Reach()
    m, k, d = listed.shape
    own = _near(sample, centres, 1e9, MOST_CELLS, threads)
    theirs = _near(listed.reshape(m * k, d), centres, 1e9, MOST_CELLS, threads)
    # the ratio at which a visitor reaches the other's home
    there = _reach(own, theirs.home.reshape(m, k))
    back = _reach(theirs, np.repeat(own.home, k)[:, None])
    met = np.array([(there <= ratio).mean() for ratio in RATIOS])
    both = np.minimum(met, [(back <= ratio).mean() for ratio in RATIOS])
    enter, refill = _first(both, 1 - KEPT_LOSS * loss), _first(met, 1 - loss)
    return Reach(float(RATIOS[enter]), float(both[enter]), float(RATIOS[refill]))


def _first(shares: NDArray[np.float64], enough: float) -> int:
    """The first place with enough, else the last."""
    return int(np.argmax(shares >= enough)) if shares[-1] >= enough else len(shares) - 1


def _reach(visitors: NearCells, wanted: Int32s) -> Float32s:
    nearest = visitors.squared.min(axis=1, keepdims=True)
    out = np.full(wanted.shape, np.inf, np.float32)
    for place in range(visitors.cells.shape[1]):
        there = visitors.cells[:, place, None] == wanted
        ratio = np.sqrt(visitors.squared[:, place] / np.maximum(nearest[:, 0], 1e-30))
        out = np.where(there, ratio[:, None], out)
    return out


def _near(vectors: Float32s, centres: Float32s, ratio: float, most: int, threads: int) -> NearCells:
    contiguous = np.ascontiguousarray(vectors)
    points = points_of(contiguous, np.arange(len(vectors), dtype=np.int32), 0)
    # the ratio alone decides
    panel = panel_of(centres, points, np.zeros(len(centres), np.float32))
    return near_cells(points, panel, ratio=ratio, most=most, threads=threads)


def pairs_per_row(home: Int32s, cells: int) -> float:
    """Residents that a resident of a cell meets there, on average."""
    sizes = np.bincount(home[home >= 0], minlength=cells).astype(np.float64)
    return float((sizes * sizes).sum() / max(1.0, sizes.sum()))


def at_training(home: Int32s, cells: int) -> dict[str, Any]:
    """The facts of cells that were just trained."""
    return {
        "trained_rows": len(home),
        "trained_live": int((home != REMOVED).sum()),
        "trained_pairs": pairs_per_row(home, cells),
    }


def drift(cells: UpdateCells) -> Drift:
    """What has become of the cells since they were trained; pure.

    A rebuild is due when a third of the live rows came or changed since, when a fifth of all
    rows are removed, or when cells have become so uneven that work per row has doubled.
    """
    removed = int((cells.home == REMOVED).sum())
    live = len(cells.home) - removed
    at_first, rows = int(cells.facts["trained_live"]), int(cells.facts["trained_rows"])
    added, changed = len(cells.home) - rows, int(cells.facts.get("changed", 0))
    before = float(cells.facts["trained_pairs"]) / max(1, at_first)
    growth = pairs_per_row(cells.home, len(cells.centres)) / max(1, live) / max(before, 1e-30)
    due = []
    if added + changed > live / 3:
        due.append(f"{added + changed:,} of {live:,} recordings are new to the cells, or changed")
    if removed > len(cells.home) / 5:
        due.append(f"{removed:,} of {len(cells.home):,} rows are removed and still take room")
    if growth > 2:
        due.append(f"cells have become uneven: a recording meets {growth:.1f} times its share")
    return Drift(live, removed, added, round(growth, 3), tuple(due))


def write_cells(folder: Path, cells: UpdateCells, *, fingerprint: str) -> None:
    """Write the cells of a run whose matrix has that fingerprint; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ARRAYS:
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, getattr(cells, name))
    write_manifest(
        folder / "manifest.json",
        kind=KIND,
        fingerprint=fingerprint,
        format_version=FORMAT_VERSION,
        files=[f"{name}.npy" for name in ARRAYS],
        facts=cells.facts,
    )


def read_cells(folder: Path, *, fingerprint: str) -> UpdateCells | None:
    """The cells kept there for the matrix of that fingerprint; None where there are none."""
    try:
        manifest = read_manifest(folder / "manifest.json", kind=KIND)
    except (MissingFile, DamagedArtefact):
        return None
    if manifest.fingerprint != fingerprint or manifest.format_version != FORMAT_VERSION:
        return None
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
    return UpdateCells(**arrays, facts=dict(manifest.facts))
