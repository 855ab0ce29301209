"""Which vectors go to which shard: k-means cells with overlap by a distance-ratio rule.

Pure numerics. A vector has its home in the nearest cell and is copied into every further cell
whose centre is at most `ratio` times as far away as the nearest. A pair of neighbours can be found
when some cell holds both; `overlap_for` measures on a sample which ratio brings enough together.
"""

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from nearfield.space import Float32s, Int32s
from nearfield.vectorset import row_blocks

TRAINING_ROWS_PER_CELL = 1_000
ITERATIONS = 12
RATIOS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0)


def cell_centres(vectors: Float32s, cells: int, *, seed: int) -> Float32s:
    """k-means centres float32 [cells, d] of a seeded sample of vectors [n, d]; 0 for a single cell.

    Cost O(sample x cells x d) per iteration, with sample <= 1,000 x cells.
    """
    n, d = vectors.shape
    if cells == 1:
        return np.zeros((1, d), np.float32)
    sample = min(n, cells * TRAINING_ROWS_PER_CELL)
    rows = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    kmeans = faiss.Kmeans(
        d, cells, niter=ITERATIONS, seed=seed + 1, min_points_per_centroid=1, verbose=False
    )
    kmeans.train(np.ascontiguousarray(vectors[rows]))
    return kmeans.centroids


def squared_distances_to(centres: Float32s, vectors: Float32s) -> Float32s:
    """Squared Euclidean distances float32 [m, cells], for the choice of cells only."""
    return faiss.pairwise_distances(np.ascontiguousarray(vectors), centres)


def memberships(squared: Float32s, ratio: float) -> NDArray[np.bool_]:
    """Which cells hold each vector, bool [m, cells], from squared distances to the centres."""
    nearest = squared.min(axis=1, keepdims=True)
    return squared <= np.maximum(nearest, 0) * np.float32(ratio * ratio)


def cell_members(vectors: Float32s, centres: Float32s, ratio: float) -> list[Int32s]:
    """For each cell the ascending rows int32 that it holds. Cost O(n x cells x d), in blocks."""
    found: list[list[Int32s]] = [[] for _ in range(len(centres))]
    first = 0
    for block in row_blocks(vectors):
        member = memberships(squared_distances_to(centres, block), ratio)
        for cell, rows in enumerate(found):
            rows.append((np.flatnonzero(member[:, cell]) + first).astype(np.int32))
        first += len(block)
    return [np.concatenate(rows) for rows in found]


def overlap_for(
    coverage: float, centres: Float32s, sample: Float32s, neighbours: Sequence[Float32s]
) -> tuple[float, float]:
    """The smallest ratio that keeps `coverage` of neighbours in a common cell; and what it keeps.

    sample: float32 [m, d]; neighbours: for each of them its true neighbours' vectors [k, d].
    Cost O(m k cells d).
    """
    own = squared_distances_to(centres, sample)
    theirs = [squared_distances_to(centres, vectors) for vectors in neighbours]
    kept = 0.0
    for ratio in RATIOS:
        kept = float(np.mean(list(_shared(own, theirs, ratio))))
        if kept >= coverage:
            return ratio, kept
    return RATIOS[-1], kept


def _shared(own: Float32s, theirs: Sequence[Float32s], ratio: float) -> Iterator[float]:
    for mine, other in zip(memberships(own, ratio), theirs, strict=True):
        yield float((memberships(other, ratio) & mine).any(axis=1).mean())
