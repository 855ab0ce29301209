"""The centres of the cells: k-means on a sample, in two levels, then polished flat.

Two levels make training cost sample x sqrt(cells) per pass in place of sample x cells, and give a
dense region as many cells as its share of the sample asks for. Cells that are giants all the same
are split until none is left, since work grows with the square of their size and buffers with it.
Seeded; the result doesn't depend on the number of threads.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.assign import assigned
from index_build.selfjoin.jit import kernel
from index_build.selfjoin.nearest import NearCells, panel_of
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s

SAMPLE_PER_CELL = 100
PASSES = 6
POLISH = 1
GIANT = 3
"""A cell is split when it holds so many times its share of the sample."""
SPLITS = 30
DUST = 16
"""A cell with less than this part of its share is given up: its points could not fill a list."""


@dataclass(frozen=True)
class Trained:
    """centres float32 [c, d]; radii float32 [c], the median distance of a cell's points from its
    centre; shares float64 [c] of all points.
    """

    centres: Float32s
    radii: Float32s
    shares: NDArray[np.float64]


def trained_centres(points: Points, cells: int, *, seed: int, threads: int) -> Float32s:
    """Centres alone, as `trained` makes them."""
    return trained(points, cells, seed=seed, threads=threads).centres


def trained(
    points: Points, cells: int, *, seed: int, threads: int, per_cell: int = SAMPLE_PER_CELL
) -> Trained:
    """About `cells` cells, neighbours in space near each other in number, from a seeded sample of
    `per_cell` points each.

    Of the sample no cell holds more than 3 times its share, unless its points can't be told apart
    in float32; of all points, 4 times is beyond chance with a sample of 100 per cell.
    Cost O(sample d (passes sqrt(cells) + cells)); memory: the sample.
    """
    random = np.random.default_rng(seed)
    size = min(len(points), cells * per_cell)
    chosen = np.sort(random.choice(len(points), size, replace=False)).astype(np.int32)
    vectors = np.ascontiguousarray(points.vectors[points.rows[chosen]])
    sample = replace(points, vectors=frozen(vectors), rows=np.arange(size, dtype=np.int32))
    regions = lloyd(sample, round(cells**0.5), PASSES, random, threads)
    region = nearest_of(sample, regions, threads)
    shares = cells_per_region(np.bincount(region, minlength=len(regions)), cells)
    parts = [
        lloyd(sample.chosen(members_of(region, i)), int(share), PASSES, random, threads)
        for i, share in enumerate(shares)
        if share
    ]
    centres = moved(sample, np.concatenate(parts), POLISH, threads)
    usual = max(1, size // cells)
    for _ in range(SPLITS):
        near = nearest_cells(sample, centres, threads)
        split = with_giants_split(sample, near.home, centres, usual, random, threads)
        if len(split) == len(centres):
            break
        centres = split
    held = np.bincount(near.home, minlength=len(centres)) * DUST >= usual
    if not held.all():
        centres = centres[held]
        near = nearest_cells(sample, centres, threads)
    return Trained(centres, *_measured(near, len(centres), float(points.scale)))


def _measured(near: NearCells, cells: int, scale: float) -> tuple[Float32s, NDArray[np.float64]]:
    sizes = np.bincount(near.home, minlength=cells)
    order = np.lexsort((near.squared[:, 0], near.home))
    middle = np.cumsum(sizes) - sizes + sizes // 2
    medians = near.squared[order[np.minimum(middle, len(order) - 1)], 0]
    radii = np.where(sizes > 0, np.sqrt(medians.astype(np.float64)) / scale, 0)
    return radii.astype(np.float32), sizes / max(1, len(near.home))


def with_giants_split(
    sample: Points, home: Int32s, centres: Float32s, usual: int,
    random: np.random.Generator, threads: int,
) -> Float32s:  # fmt: skip
    """Centres where each cell with too large a share of the sample gives way to several."""
    sizes = np.bincount(home, minlength=len(centres))
    parts = [
        lloyd(sample.chosen(members_of(home, i)), int(size // usual), PASSES, random, threads)
        if size > GIANT * usual
        else centres[i : i + 1]
        for i, size in enumerate(sizes)
    ]
    return np.concatenate(parts)


def cells_per_region(sizes: NDArray[np.integer], cells: int) -> NDArray[np.int64]:
    """How many cells each region gets: by its share of the sample, at least one if it has any."""
    shares = np.round(sizes * (cells / max(1, sizes.sum()))).astype(np.int64)
    return np.minimum(np.maximum(shares, 1), sizes)


def members_of(region: Int32s, i: int) -> Int32s:
    """Points of region i."""
    return np.flatnonzero(region == i).astype(np.int32)


def lloyd(
    points: Points, cells: int, passes: int, random: np.random.Generator, threads: int
) -> Float32s:
    """k-means centres of all `points`, begun at some of them. Empty cells are dropped."""
    first = np.sort(random.choice(len(points), min(cells, len(points)), replace=False))
    return moved(points, points.vectors[points.rows[first]], passes, threads)


def moved(points: Points, centres: Float32s, passes: int, threads: int) -> Float32s:
    """Centres after some passes of Lloyd's algorithm."""
    for _ in range(passes):
        if len(centres) == 1:
            return (
                points.vectors[points.rows]
                .mean(axis=0, dtype=np.float64, keepdims=True)
                .astype(np.float32)
            )
        home = nearest_of(points, centres, threads)
        sums = np.zeros(centres.shape, np.float64)
        sizes = np.zeros(len(centres), np.int64)
        add_up(points.vectors, points.rows, home, sums, sizes)
        held = sizes > 0
        centres = (sums[held] / sizes[held, None]).astype(np.float32)
    return centres


def nearest_of(points: Points, centres: Float32s, threads: int) -> Int32s:
    """The nearest centre of each point, int32 [m]."""
    return nearest_cells(points, centres, threads).home


def nearest_cells(points: Points, centres: Float32s, threads: int) -> NearCells:
    """The nearest centre of each point and how far it is."""
    panel = panel_of(centres, points, np.zeros(len(centres), np.float32))
    return assigned(points, panel, most=1, threads=threads)


@kernel
def add_up(
    vectors: Float32s, rows: Int32s, home: Int32s,
    sums: NDArray[np.float64], sizes: NDArray[np.int64],
) -> None:  # fmt: skip
    """Add each point to its centre's sum, in the order of the points."""
    for i in range(len(rows)):
        sizes[home[i]] += 1
        for t in range(vectors.shape[1]):
            sums[home[i], t] += vectors[rows[i], t]
