"""The centres of the cells: k-means on a sample, in two levels, then polished across their borders.

Two levels make training cost sample x sqrt(cells) per pass in place of sample x cells, and give a
dense region as many cells as its share of the sample asks for. Cells that are giants all the same
are split until none is left, since work grows with the square of their size and buffers with it.
Seeded; the result doesn't depend on the number of threads.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import lists_by
from index_build.selfjoin.lloyd import clustered, nearest_cells, polished
from index_build.selfjoin.nearest import NearCells
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s

SAMPLE_PER_CELL = 100
POLISH = 10
"""Each makes cells rounder and more alike: a tenth fewer pairs in all, for the same recall."""
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
    size = min(len(points), cells * per_cell)
    chosen, _ = _drawn(len(points), size, seed)
    vectors = np.ascontiguousarray(points.vectors[points.rows[chosen]])
    every = np.arange(size, dtype=np.int32)
    sample = replace(points, vectors=frozen(vectors), rows=every)
    return trained_from(sample, len(points), cells, seed=seed, threads=threads)


def training_points(n: int, cells: int, *, seed: int) -> Int32s:
    """Which of n points train so many cells, ascending."""
    return _drawn(n, min(n, cells * SAMPLE_PER_CELL), seed)[0]


def trained_from(sample: Points, n: int, cells: int, *, seed: int, threads: int) -> Trained:
    """As `trained`, from its sample of n points."""
    size, every = len(sample), np.arange(len(sample), dtype=np.int32)
    _, random = _drawn(n, size, seed)
    (middles,) = clustered([sample], [round(cells**0.5)], random, threads)
    regions = lists_by(nearest_of(sample, middles, threads), every, len(middles))
    some = np.flatnonzero(regions.sizes).astype(np.int32)
    middles, regions = middles[some], regions.chosen(some)
    parts = [sample.chosen(regions[i]) for i in range(len(regions))]
    shares = cells_per_region(regions.sizes, cells)
    centres = np.concatenate(clustered(parts, shares.tolist(), random, threads))
    centres = polished(sample, regions, middles, centres, passes=POLISH, threads=threads)
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
    return Trained(centres, *_measured(near, len(centres), float(sample.scale)))


def _drawn(n: int, size: int, seed: int) -> tuple[Int32s, np.random.Generator]:
    random = np.random.default_rng(seed)
    return np.sort(random.choice(n, size, replace=False)).astype(np.int32), random


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
    giants = np.flatnonzero(sizes > GIANT * usual)
    parts = [sample.chosen(np.flatnonzero(home == giant).astype(np.int32)) for giant in giants]
    pieces = [centres[i : i + 1] for i in range(len(centres))]
    counts = (sizes[giants] // usual).tolist()
    for giant, split in zip(giants, clustered(parts, counts, random, threads), strict=True):
        pieces[giant] = split
    return np.concatenate(pieces)


def cells_per_region(sizes: NDArray[np.integer], cells: int) -> NDArray[np.int64]:
    """How many cells each region gets: by its share of the sample, at least one if it has any."""
    shares = np.round(sizes * (cells / max(1, sizes.sum()))).astype(np.int64)
    return np.minimum(np.maximum(shares, 1), sizes)


def nearest_of(points: Points, centres: Float32s, threads: int) -> Int32s:
    """The nearest centre of each point, int32 [m]."""
    return nearest_cells(points, centres, threads).home
