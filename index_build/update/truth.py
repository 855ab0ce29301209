"""The true k-th distance of some rows, from all of what is left: what recall is measured by.

A list says how far at most its k-th neighbour is. So products in float32 have only to tell which
rows may be nearer than that, given what they round; few are, and those are measured in float64.
Shares nothing with the search that made the lists. Holds no I/O.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index_build.selfjoin.jit import run_parallel
from index_build.update.rows import Rows
from nearfield.space import Float32s, Int32s, SpaceName, pair_distances

BLOCK_ROWS = 4_096
CENTRED = 4_096
"""Vectors whose mean is taken for the centre: nearer the origin, products round less."""


def kth_distances(
    rows: Rows, queries: Int32s, live: NDArray[np.bool_], found: Float32s, *, threads: int
) -> Float32s:
    """The true k-th distance [q] of the rows `queries` among the live ones, without themselves.

    found: distances [q, k] of their lists, sorted. Minus infinity where fewer than k are as near as
    a list says: then it says what isn't so. Cost O(q n d); memory: a block of products per thread.
    """
    n, k = len(live), found.shape[1]
    centre = _centre(rows, live)
    asked = rows.take(queries)
    reach = found[:, -1].astype(np.float64)
    blocks = range(0, n, BLOCK_ROWS)
    near: list[tuple[NDArray[np.int64], Float32s]] = [(np.empty(0, np.int64), found[:0, 0])] * len(
        blocks
    )

    def look(first: int) -> None:
        some = np.arange(first, min(n, first + BLOCK_ROWS), dtype=np.int32)
        some = some[live[some]]
        vectors = rows.take(some)
        who, which = _perhaps(asked, vectors, centre, reach, rows.space)
        other = some[which] != queries[who]
        who, which = who[other], which[other]
        near[first // BLOCK_ROWS] = (who, pair_distances(asked[who], vectors[which], rows.space))

    # the threads here are enough: those of BLAS would wait for each other
    with threadpool_limits(1, user_api="blas"):
        run_parallel(look, blocks, threads)
    who, far = (np.concatenate(parts) for parts in zip(*near, strict=True))
    order = np.lexsort((far, who))
    starts = np.searchsorted(who[order], np.arange(len(queries) + 1))
    enough = np.diff(starts) >= k
    out = np.full(len(queries), -np.inf, np.float32)
    out[enough] = far[order][starts[:-1][enough] + k - 1]
    return out


def _centre(rows: Rows, live: NDArray[np.bool_]) -> Float32s:
    if rows.space == "ip":
        return np.zeros(rows.old.shape[1], np.float32)
    there = np.flatnonzero(live).astype(np.int32)
    some = rows.take(there[:: max(1, len(there) // CENTRED)])
    return some.mean(axis=0, dtype=np.float64).astype(np.float32)


def _perhaps(
    queries: Float32s, vectors: Float32s, centre: Float32s, reach: NDArray[np.float64],
    space: SpaceName,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Pairs (query, vector) that may be within the queries' reach: all that are, and few others."""
    left, right = queries - centre, vectors - centre
    own, their = (np.einsum("ij,ij->i", part, part) for part in (left, right))
    products = left @ right.T
    unit = 2 * np.finfo(np.float32).eps * (queries.shape[1] + 4)
    longest = np.sqrt(own.max(initial=0)) + np.sqrt(their.max(initial=0))
    doubt = unit * float(longest) ** 2
    if space == "ip":
        return _places(-products <= (reach + doubt).astype(np.float32)[:, None])
    squared = (reach * reach if space == "l2" else 2 * reach) * (1 + unit)
    # |x - y|^2 <= r^2, as |y|^2 / 2 - xy <= (r^2 - |x|^2) / 2
    products -= their / 2
    return _places(products >= ((own - squared - doubt) / 2).astype(np.float32)[:, None])


def _places(hits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # nearly all are False, which NumPy skips in one dimension only
    first, second = np.divmod(np.flatnonzero(hits), hits.shape[1])
    return first, second
