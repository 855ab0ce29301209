"""The matrix by a method: its own graph of all rows, or an index that is asked for every row.

Owns what all methods share there: tuning the search effort to an asked recall, dropping the row
itself, recomputing distances.
"""

import numpy as np

from benchmark.methods.base import Asked, Index, Method, tie_aware_recall
from nearfield.distances import list_distances, sort_lists
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

SAMPLE = 200
"""Rows on which the recall of an effort is measured."""
BATCH = 16_384


def neighbours_of_all(
    method: Method, vectors: Float32s, asked: Asked, *, graph: bool = False
) -> tuple[Int32s, Float32s]:
    """Neighbours int32 and distances float32 [n, min(k, n - 1)] of every row.

    vectors: prepared, float32 [n, d]. A method that can be queried is asked for every row, with the
    cheapest effort whose recall on a seeded sample reaches `asked.recall`, else the greatest; any
    other, and one whose `graph` is asked for, gives its graph, at the recall that its parameters
    say. Lists as `finished_lists` makes them. Raises `InputRejected` for a space that the method
    lacks. Cost: one build, and n queries of k + 1 unless by the graph.
    """
    n, columns = len(vectors), min(asked.k, len(vectors) - 1)
    if graph or "queries" not in method.workloads:
        found = method.all_neighbours(
            vectors, asked.k, asked.space, threads=asked.threads, seed=asked.seed
        )
        rows = np.arange(n, dtype=np.int32)
        return finished_lists(vectors, rows, found, columns, asked.space)
    index = method.build(vectors, asked.space, threads=asked.threads, seed=asked.seed)
    effort = _cheapest_effort(index, vectors, asked)
    neighbours = np.empty((n, columns), np.int32)
    distances = np.empty((n, columns), np.float32)
    for start in range(0, n, BATCH):
        rows = np.arange(start, min(start + BATCH, n), dtype=np.int32)
        part = slice(start, start + len(rows))
        neighbours[part], distances[part] = _lists(index, vectors, rows, asked, effort)
    return neighbours, distances


def finished_lists(
    vectors: Float32s, rows: Int32s, found: Int32s, columns: int, space: SpaceName
) -> tuple[Int32s, Float32s]:
    """What a library found for `rows` int32 [m], as neighbours and distances [m, columns].

    found: int32 [m, any], in any order, may hold the row itself (dropped by number) and -1. Lists
    are sorted by (recomputed distance, row); -1 and infinity fill places that were left empty.
    """
    others = np.where(found == rows[:, None], np.int32(EMPTY), found)
    if others.shape[1] < columns:
        missing = columns - others.shape[1]
        others = np.pad(others, ((0, 0), (0, missing)), constant_values=EMPTY)
    queries = np.ascontiguousarray(vectors[rows])
    neighbours, distances = sort_lists(others, list_distances(queries, vectors, others, space))
    return neighbours[:, :columns], distances[:, :columns]


def _lists(
    index: Index, vectors: Float32s, rows: Int32s, asked: Asked, effort: int
) -> tuple[Int32s, Float32s]:
    columns = min(asked.k, len(vectors) - 1)
    found = index.search(np.ascontiguousarray(vectors[rows]), columns + 1, effort)
    return finished_lists(vectors, rows, found, columns, asked.space)


def _cheapest_effort(index: Index, vectors: Float32s, asked: Asked) -> int:
    n = len(vectors)
    chosen = np.random.default_rng(asked.seed).choice(n, min(SAMPLE, n), replace=False)
    rows = np.sort(chosen).astype(np.int32)
    efforts = index.efforts(asked.k)
    if len(efforts) == 1:
        return efforts[0]
    _, truth = exact_search(vectors[rows], vectors, asked.k, space=asked.space, own_rows=rows)
    for effort in efforts:
        _, found = _lists(index, vectors, rows, asked, effort)
        if tie_aware_recall(found, truth) >= asked.recall:
            break
    return effort
