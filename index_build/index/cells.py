"""Shards of bounded size: k-means cells, and what is still too large split until it isn't.

Pure numerics. Every vector is in exactly one shard. The bound is hard: where k-means can't split
(equal or nearly equal vectors), rows are cut in order and the pieces have nearly the same centre.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

from index_build.partition import cell_centres
from nearfield.space import Float32s, Int32s, SpaceName
from nearfield.vectorset import row_blocks

FILL = 0.75
"""Mean size of a shard, as a share of the bound, that k-means is asked for."""
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class ShardRows:
    """centres float32 [s, d], the mean of each shard; members: its rows, int32 ascending."""

    centres: Float32s
    members: tuple[Int32s, ...]


def bounded_shards(vectors: Float32s, rows: Int32s, most: int, *, seed: int) -> ShardRows:
    """Cut vectors[rows] into shards of at most `most` >= 1 rows, none empty.

    vectors: float32 [n, d]; rows: ascending. Cost O(m d s) for the assignment plus k-means on at
    most 1,000 rows a shard.
    """
    members = list(_split(vectors, rows, most, seed))
    centres = [_mean(vectors, part) for part in members]
    return ShardRows(np.array(centres, np.float32), tuple(members))


def _mean(vectors: Float32s, rows: Int32s) -> Float32s:
    total = np.zeros(vectors.shape[1])
    for first in range(0, len(rows), BLOCK_ROWS):
        total += vectors[rows[first : first + BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def _split(vectors: Float32s, rows: Int32s, most: int, seed: int) -> Iterator[Int32s]:
    if len(rows) <= most:
        if len(rows):
            yield rows
        return
    cells = max(2, -(-len(rows) // max(1, int(most * FILL))))
    whole = len(rows) == len(vectors)
    chosen = vectors if whole else _gathered(vectors, rows)
    home = nearest_centre(chosen, cell_centres(chosen, min(cells, len(rows)), seed=seed))
    del chosen
    for cell in range(cells):
        part = rows[home == cell]
        if len(part) == len(rows):
            # k-means couldn't tell them apart
            yield from np.array_split(rows, -(-len(rows) // most))
        else:
            yield from _split(vectors, part, most, seed + 1)


def _gathered(vectors: Float32s, rows: Int32s) -> Float32s:
    return np.ascontiguousarray(vectors[rows])


def nearest_centre(vectors: Float32s, centres: Float32s) -> Int32s:
    """The centre of each vector, int32 [m]."""
    return np.concatenate(
        [
            faiss.knn(np.ascontiguousarray(block), centres, 1)[1][:, 0].astype(np.int32)
            for block in row_blocks(vectors)
        ]
    )


def route(queries: Float32s, centres: Float32s, shards: int, space: SpaceName) -> Int32s:
    """The shards to ask for each query, int32 [q, shards], most promising first.

    By distance to the shard's centre; under ip by the product with it. Cost O(q s d).
    """
    if space == "ip":
        scores = -(queries @ centres.T)
    else:
        scores = faiss.pairwise_distances(np.ascontiguousarray(queries), centres)
    return np.argsort(scores, axis=1, kind="stable")[:, :shards].astype(np.int32)
