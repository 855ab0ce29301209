"""Choosing the partition: cell size by k, overlap by what a sample with known truth asks for.

A pair is found exactly when one of its points visits (or lives in) the other's home. So the recall
of a join is known before it runs: take a sample of points, find their true neighbours by a sweep,
look up the nearest cells of both, and count the pairs that meet. The smallest distance ratio that
reaches the asked recall is the plan.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.join import NearLists
from index_build.selfjoin.nearest import NearCells, Panel, near_cells, panel_of
from index_build.selfjoin.points import Points
from index_build.selfjoin.sweep import nearest_points
from index_build.selfjoin.train import trained_centres
from nearfield.space import Float32s, Int32s

SAMPLE = 1_024, 2_048
"""Fewest and most points with known truth: more for small k, whose recall scatters more."""
TRUE_PAIRS = 20_000
MOST_CELLS = 48
RATIOS = np.linspace(1.0, 2.0, 101)
EXACT_SHARE = 0.2
"""Past this share of all points per point, comparing everything is cheaper."""
CANCELLING = 1e-3
"""Squared distances below this share of the squared extent lose digits in a float32 product."""
MARGIN_ERRORS = 2.0
"""Standard errors of the sampled recall that the plan aims above what was asked."""


@dataclass(frozen=True)
class Sample:
    """Points int32 [q] and their true lists."""

    points: Int32s
    truth: NearLists


@dataclass(frozen=True)
class Plan:
    """A partition to be made: `panel` of centres, the distance `ratio`, at most `most` cells.

    `expected` recall as the sample predicts it; `visits` cells per point, home included, and the
    `pairs_per_point` that the join will compute.
    """

    panel: Panel
    ratio: float
    most: int
    expected: float
    visits: float
    pairs_per_point: float


def drawn_sample(points: Points, k: int, *, seed: int, threads: int) -> Sample:
    """A seeded sample and its truth. Cost 1,024 to 2,048 times u x d."""
    random = np.random.default_rng((seed, 1))
    size = min(max(SAMPLE[0], min(SAMPLE[1], TRUE_PAIRS // k)), len(points))
    queries = np.sort(random.choice(len(points), size, replace=False)).astype(np.int32)
    return Sample(queries, nearest_points(points, queries, k, threads=threads))


def needs_care(points: Points, sample: Sample) -> bool:
    """Whether some sampled list is so short, against the extent of all, that products cancel."""
    own = points.vectors[points.rows[sample.points]].astype(np.float64) * float(points.scale)
    extent = ((own - own.mean(axis=0)) ** 2).sum(axis=1).max()
    return bool(sample.truth.limits.min() < CANCELLING * extent)


def cell_size(k: int) -> int:
    """Residents that a cell has on average: enough to fill first lists, few to keep pairs few."""
    return max(8 * k, 128)


def choose_plan(
    points: Points, sample: Sample, recall: float, *, seed: int, threads: int
) -> Plan | None:
    """The plan for that recall, or None where comparing everything is cheaper.

    Cells are doubled in size while no ratio reaches the recall. Raises nothing.
    """
    size = cell_size(sample.truth.k)
    while size <= len(points) * EXACT_SHARE / 2:
        centres = trained_centres(points, len(points) // size, seed=seed, threads=threads)
        plan = plan_for(points, sample, recall, centres, threads=threads)
        if plan.expected >= recall and plan.pairs_per_point <= EXACT_SHARE * len(points):
            return plan
        size *= 2
    return None


def plan_for(
    points: Points, sample: Sample, recall: float, centres: Float32s, *, threads: int
) -> Plan:
    """The cheapest plan with these centres, or the one nearest to the recall."""
    panel = panel_of(centres, points)
    own, theirs = (
        near_cells(points.chosen(chosen), panel, ratio=np.inf, most=MOST_CELLS, threads=threads)
        for chosen in (sample.points, sample.truth.points.ravel())
    )
    low, high = 0, len(RATIOS) - 1
    while low < high:
        middle = (low + high) // 2
        found = found_shares(own, theirs, float(RATIOS[middle]))
        error = found.std() / np.sqrt(len(found))
        if found.mean() - MARGIN_ERRORS * error >= recall:
            high = middle
        else:
            low = middle + 1
    ratio = float(RATIOS[low])
    expected = float(found_shares(own, theirs, ratio).mean())
    visits = float((kept(own, ratio) >= 0).sum(axis=1).mean())
    return Plan(panel, ratio, MOST_CELLS, expected, visits, visits * len(points) / len(centres))


def found_shares(own: NearCells, theirs: NearCells, ratio: float) -> NDArray[np.float64]:
    """Share [q] of each sample point's true neighbours that it meets at that ratio."""
    q = len(own.home)
    their_home = theirs.home.reshape(q, -1)
    mine = kept(own, ratio)
    visits_them = (mine[:, None, :] == their_home[:, :, None]).any(axis=2)
    visit_me = (kept(theirs, ratio).reshape(q, -1, mine.shape[1]) == own.home[:, None, None]).any(2)
    return (visits_them | visit_me).mean(axis=1)


def kept(near: NearCells, ratio: float) -> Int32s:
    """Cells [m, most] within the ratio, -1 elsewhere."""
    nearest = near.squared.min(axis=1, keepdims=True)
    return np.where(near.squared <= nearest * np.float32(ratio * ratio), near.cells, -1)
