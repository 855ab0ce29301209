"""Exact search: the truth that methods are measured against, and the method for small sets.

Owns one promise: the result is what sorting all n distances (float64, by the definition) by
(distance, row) would give. A float32 matrix product proposes candidates; a bound on its rounding
error certifies them; the few rows that it can't certify are searched again in float64. Where
nearly all would be candidates, all are.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from nearfield.distances import list_distances, sort_lists
from nearfield.space import Float32s, Int32s, SpaceName, pair_distances
from nearfield.vectorset import row_blocks

SLACK = 28
"""Candidates fetched beyond k: room for the rounding of the float32 product."""
CENTRED = 16_384
"""Vectors whose mean is taken for the centre of all."""


def exact_search(
    queries: Float32s,
    vectors: Float32s,
    k: int,
    *,
    space: SpaceName,
    own_rows: NDArray[np.integer] | None = None,
) -> tuple[Int32s, Float32s]:
    """The k nearest vectors of each query: neighbours int32 [q, k'], distances float32 [q, k'].

    queries [q, d] and vectors [n, d] are prepared (`nearfield.space.prepared`), C order.
    `own_rows` [q]: the row that each query is itself, never returned; k' = min(k, n) or
    min(k, n - 1) then. Lists are sorted by (distance, row). Cost O(q n d) flops on faiss' and
    numba's current threads; memory O(q k) and blocks.
    """
    n = len(vectors)
    columns = min(k, n if own_rows is None else n - 1)
    if columns <= 0 or not len(queries):
        return np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), np.float32)
    fetch = columns + 1 + SLACK
    if fetch >= n:
        return _nearest_of(_everyone(len(queries), n, own_rows), queries, vectors, columns, space)
    found = _candidates(queries, vectors, fetch, space)
    proposed = found.rows
    if own_rows is not None:
        proposed[proposed == own_rows[:, None]] = -1
    neighbours, distances = _nearest_of(proposed, queries, vectors, columns, space)
    kth = _as_compared(distances[:, -1], space)
    for i in np.flatnonzero(~(kth + found.rounding < found.horizon)):
        own = None if own_rows is None else int(own_rows[i])
        neighbours[i], distances[i] = _searched_in_float64(queries[i], vectors, columns, space, own)
    return neighbours, distances


def _everyone(count: int, n: int, own_rows: NDArray[np.integer] | None) -> Int32s:
    """All rows but the own one for each of `count` queries: int32 [count, n or n - 1]."""
    if own_rows is None:
        return np.tile(np.arange(n, dtype=np.int32), (count, 1))
    others = np.arange(n - 1, dtype=np.int32)
    return others + (others >= own_rows[:, None]).astype(np.int32)


def _nearest_of(
    proposed: Int32s, queries: Float32s, vectors: Float32s, columns: int, space: SpaceName
) -> tuple[Int32s, Float32s]:
    """The nearest of the rows proposed for each query, -1 for none."""
    distances = list_distances(queries, vectors, proposed, space)
    neighbours, distances = sort_lists(proposed, distances)
    return neighbours[:, :columns].copy(), distances[:, :columns].copy()


@dataclass(frozen=True)
class _Candidates:
    """rows int32 [q, fetch]; no other row is nearer than `horizon` [q] give or take `rounding`."""

    rows: Int32s
    horizon: NDArray[np.float64]
    rounding: NDArray[np.float64]


def _candidates(queries: Float32s, vectors: Float32s, fetch: int, space: SpaceName) -> _Candidates:
    # moving the origin into the data changes no difference and keeps the rounding error small
    centre = np.zeros(vectors.shape[1], np.float32) if space == "ip" else _centre(vectors)
    metric = faiss.METRIC_INNER_PRODUCT if space == "ip" else faiss.METRIC_L2
    sign = -1 if space == "ip" else 1
    moved = queries - centre
    rows = np.full((len(queries), 0), -1, np.int32)
    scores = np.empty((len(queries), 0), np.float32)
    first, longest = 0, 0.0
    for block in row_blocks(vectors):
        moved_block = block - centre
        longest = max(longest, _longest(moved_block))
        block_scores, block_rows = faiss.knn(
            moved, moved_block, min(fetch, len(block)), metric=metric
        )
        rows = np.concatenate([rows, block_rows.astype(np.int32) + np.int32(first)], axis=1)
        scores = np.concatenate([scores, sign * block_scores], axis=1)
        if rows.shape[1] > fetch:
            best = np.argpartition(scores, fetch - 1, axis=1)[:, :fetch]
            rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
        first += len(block)
    unit = np.finfo(np.float32).eps * (queries.shape[1] + 4)
    # both the candidate at the horizon and the k-th one may be off by this much
    rounding = 2 * unit * (_lengths(moved) + longest) ** 2
    return _Candidates(rows, scores.max(axis=1).astype(np.float64), rounding)


def _centre(vectors: Float32s) -> Float32s:
    """Somewhere in the middle: of many vectors some will do."""
    some = vectors[:: max(1, len(vectors) // CENTRED)]
    return some.mean(axis=0, dtype=np.float64).astype(np.float32)


def _as_compared(distances: Float32s, space: SpaceName) -> NDArray[np.float64]:
    """Distances in the unit that the float32 product compares: squared for l2 and cosine."""
    wide = distances.astype(np.float64)
    return {"l2": wide * wide, "cosine": 2 * wide, "ip": wide}[space]


def _longest(vectors: Float32s) -> float:
    """No vector is longer: the largest length by float32, and what that may have lost."""
    squared = float(np.einsum("ij,ij->i", vectors, vectors).max(initial=0))
    return float(np.sqrt(squared * (1 + 2 * vectors.shape[1] * np.finfo(np.float32).eps)))


def _lengths(vectors: Float32s) -> NDArray[np.float64]:
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def _searched_in_float64(
    query: Float32s, vectors: Float32s, columns: int, space: SpaceName, own: int | None
) -> tuple[Int32s, Float32s]:
    block = max(1, (32 << 20) // (8 * vectors.shape[1]))
    distances = np.concatenate(
        [
            pair_distances(query, vectors[start : start + block], space)
            for start in range(0, len(vectors), block)
        ]
    )
    if own is not None:
        distances[own] = np.inf
    kth = np.partition(distances, columns - 1)[columns - 1]
    rows = np.flatnonzero(distances <= kth)
    rows = rows[rows != own].astype(np.int32)
    nearest = rows[np.lexsort((rows, distances[rows]))][:columns]
    return nearest, distances[nearest]
