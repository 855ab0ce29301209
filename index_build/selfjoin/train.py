"""The centres of the cells: k-means on a sample, in two levels, then polished flat.

Two levels make training cost sample x sqrt(cells) per pass in place of sample x cells, and give a
dense region as many cells as its share of the sample asks for. Seeded; the result doesn't depend
on the number of threads.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel
from index_build.selfjoin.nearest import near_cells, panel_of
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s

SAMPLE_PER_CELL = 100
PASSES = 6
POLISH = 1
SPLITS = 2
GIANT = 3
"""A cell is split when it holds so many times its share: work grows with the square of size."""


def trained_centres(points: Points, cells: int, *, seed: int, threads: int) -> Float32s:
    """At most `cells` centres float32 [c, d], neighbours in space near each other in number.

    Cost O(sample d (passes sqrt(cells) + cells)) with sample = 100 cells; memory: the sample.
    """
    random = np.random.default_rng(seed)
    size = min(len(points), cells * SAMPLE_PER_CELL)
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
    for _ in range(SPLITS):
        centres = with_giants_split(sample, centres, random, threads)
    return centres


def with_giants_split(
    sample: Points, centres: Float32s, random: np.random.Generator, threads: int
) -> Float32s:
    """Centres where each cell with too large a share of the sample gives way to several."""
    home = nearest_of(sample, centres, threads)
    sizes = np.bincount(home, minlength=len(centres))
    usual = max(1, len(sample) // len(centres))
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
    panel = panel_of(centres, points)
    return near_cells(points, panel, ratio=1, most=1, threads=threads).home


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
