"""Choosing the partition: cell size by k, overlap by what a sample with known truth asks for.

A pair is found exactly when one of its points visits (or lives in) the other's home. So the recall
of a join is known before it runs: take a sample of points, find their true neighbours by a sweep,
look up the nearest cells of both, and count the pairs that meet. The smallest ratio (how near the
border to a cell must be, for a visit) that reaches the asked recall is the plan.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from index_build.selfjoin.assign import assigned
from index_build.selfjoin.border import margins
from index_build.selfjoin.jit import kernel
from index_build.selfjoin.nearest import NearCells, Panel, panel_of
from index_build.selfjoin.points import Points
from index_build.selfjoin.sweep import nearest_points
from index_build.selfjoin.train import Trained
from nearfield.space import Float32s, Int32s

SAMPLE = 1_024, 2_048
"""Fewest and most points with known truth: more for small k, whose recall scatters more."""
TRUE_PAIRS = 20_000
TRUE_PLACES = 64
"""At most so many of a sampled point's true neighbours are looked up."""
MANY_CELLS, LARGE_CELL = 1_000, 800
"""Cells become larger rather than more numerous than the first, up to the second's residents."""
MOST_CELLS = 64
RATIOS = np.linspace(0.0, 2.0, 401)
EXACT_SHARE = 0.2
"""Past this share of all points per point, comparing everything is cheaper."""
MARGIN_ERRORS = 3.0
"""Standard errors of the sampled recall that the plan aims above what was asked."""


@dataclass(frozen=True)
class Sample:
    """Points int32 [q] and their true neighbours [q, k]."""

    points: Int32s
    truth: Int32s


@dataclass(frozen=True)
class Plan:
    """A partition to be made: `panel` of centres, the `ratio` of its border rule, out of the
    `most` nearest cells.

    `expected` recall as the sample predicts it; `visits` cells per point, home included, and the
    `pairs_per_point` that the join will compute. `largest`: residents of the largest cell, about.
    """

    panel: Panel
    ratio: float
    most: int
    expected: float
    visits: float
    pairs_per_point: float
    largest: float


def drawn(points: int, k: int, *, seed: int) -> Int32s:
    """Which of so many points are sampled, ascending."""
    random = np.random.default_rng((seed, 1))
    size = min(max(SAMPLE[0], min(SAMPLE[1], TRUE_PAIRS // k)), points)
    return np.sort(random.choice(points, size, replace=False)).astype(np.int32)


def drawn_sample(points: Points, k: int, *, seed: int, threads: int) -> Sample:
    """A seeded sample and its truth. Cost 1,024 to 2,048 times u x d."""
    queries = drawn(len(points), k, seed=seed)
    return Sample(queries, nearest_points(points, queries, k, threads=threads).points)


def cell_size(n: int, k: int) -> int:
    """Residents that a cell of n points has on average: enough to fill first lists, few to keep
    pairs few; and no more than some thousand cells, whose training would take longer than the
    pairs that they spare."""
    return max(8 * k, 128, min(n // MANY_CELLS, LARGE_CELL))


def cell_counts(n: int, k: int) -> Iterator[int]:
    """Numbers of cells to try, from the most on, while cells save work."""
    size = cell_size(n, k)
    while size <= n * EXACT_SHARE / 2:
        yield n // size
        size *= 2


def choose_plan(
    points: Points, sample: Sample, recall: float, train: Callable[[int], Trained], *, threads: int
) -> Plan | None:
    """The plan for that recall, or None where comparing everything is cheaper.

    train: so many cells. They are doubled in size while no ratio reaches the recall.
    """
    for count in cell_counts(len(points), sample.truth.shape[1]):
        plan = plan_for(points, sample, recall, train(count), threads=threads)
        if plan.expected >= recall and plan.pairs_per_point <= EXACT_SHARE * len(points):
            return plan
    return None


def plan_for(
    points: Points, sample: Sample, recall: float, cells: Trained, *, threads: int
) -> Plan:
    """The cheapest plan with these cells, or the one nearest to the recall."""
    panel = panel_of(cells.centres, points, cells.radii)
    own = _near(points.chosen(sample.points), panel, threads)
    theirs = _near(points.chosen(_true_neighbours(sample).ravel()), panel, threads)
    needed = needed_ratios(own, theirs)
    chosen = RATIOS[-1]
    for ratio in RATIOS:
        shares = (needed <= ratio).mean(axis=1)
        if shares.mean() - MARGIN_ERRORS * shares.std() / np.sqrt(len(shares)) >= recall:
            chosen = ratio
            break
    visited = own.margins <= chosen
    sizes = cells.shares * len(points)
    return Plan(
        panel=panel,
        ratio=float(chosen),
        most=MOST_CELLS,
        expected=float((needed <= chosen).mean()),
        visits=float(visited.sum(axis=1).mean()),
        pairs_per_point=float((sizes[own.near.cells] * visited).sum(axis=1).mean()),
        largest=float(sizes.max()),
    )


def _true_neighbours(sample: Sample) -> Int32s:
    """Of each sampled point's true list, int32 [q, <= 64]: some at random where it is longer."""
    k = sample.truth.shape[1]
    if k <= TRUE_PLACES:
        return sample.truth
    places = np.random.default_rng(k).permuted(
        np.broadcast_to(np.arange(k), sample.truth.shape), axis=1
    )
    return np.take_along_axis(sample.truth, places[:, :TRUE_PLACES], axis=1)


@dataclass(frozen=True)
class _Visits:
    near: NearCells
    margins: Float32s


def _near(points: Points, panel: Panel, threads: int) -> _Visits:
    near = assigned(points, panel, most=MOST_CELLS, threads=threads)
    return _Visits(near, margins(near, panel, points))


def needed_ratios(own: _Visits, theirs: _Visits) -> Float32s:
    """The smallest ratio at which each sampled point meets each true neighbour, [q, m]."""
    needed = np.empty((len(own.near.home), len(theirs.near.home) // len(own.near.home)), np.float32)
    _needed(
        own.near.home, own.near.cells, own.margins,
        theirs.near.home, theirs.near.cells, theirs.margins, needed,
    )  # fmt: skip
    return needed


@kernel
def _needed(  # noqa: PLR0913, PLR0917
    home: Int32s, cells: Int32s, apart: Float32s,
    their_home: Int32s, their_cells: Int32s, their_apart: Float32s, needed: Float32s,
) -> None:  # fmt: skip
    for i in range(needed.shape[0]):
        for j in range(needed.shape[1]):
            other = i * needed.shape[1] + j
            least = np.float32(np.inf)
            for place in range(cells.shape[1]):
                if cells[i, place] == their_home[other]:
                    least = min(least, apart[i, place])
                if their_cells[other, place] == home[i]:
                    least = min(least, their_apart[other, place])
            needed[i, j] = least
