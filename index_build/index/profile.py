"""Recall against the number of shards asked: measured once, so that users ask for recall.

Rows of the set are asked as queries, each without itself, and compared with exact search. Owns the
ladder of numbers and when to stop climbing it. Refuses files.
"""

from typing import Any

import numpy as np

from benchmark.methods.base import tie_aware_recall
from index_build.index.layout import measured_widths
from index_build.index.search import ShardedIndex
from index_build.index.store import ShardStore
from nearfield.distances import sort_lists
from nearfield.errors import InputRejected
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

SAMPLE = 400
LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
ENOUGH = 0.9995


def measured_recall(index: ShardedIndex) -> dict[str, Any]:
    """`recall`: {k: {shards: recall}} on `sample` rows; k up to the index' own.

    Stops where `ENOUGH` is reached at the largest k. Cost: an exact search for the sample, and
    sample x shards searches for each k.
    """
    config, distinct = index.config, len(index.groups.starts) - 1
    sizes = [len(index.store.arrays(number)[0]) for number in range(index.shards)]
    random = np.random.default_rng(config.seed + 1)
    drawn = np.sort(random.choice(sum(sizes), min(SAMPLE, sum(sizes)), replace=False))
    own, queries = _members(index.store, sizes, drawn)
    widest = min(config.k, distinct - 1)
    if widest < 1:
        return {"recall": {str(config.k): {"1": 1.0}}, "sample": 0}
    truth = _truth(index, own, queries, widest)
    widths = measured_widths(widest)
    found: dict[str, dict[str, float]] = {str(width): {} for width in widths}
    for shards in (*(p for p in LADDER if p < index.shards), index.shards):
        for width in widths:
            # each is searched for: libraries take less effort for fewer neighbours
            _, distances = index.lists(queries, width, shards, own)
            recall = tie_aware_recall(distances, truth[:, :width])
            found[str(width)][str(shards)] = round(recall, 5)
        if found[str(widest)][str(shards)] >= ENOUGH:
            break
    if widest < config.k:
        # equal vectors: k rows are in fewer groups
        found[str(config.k)] = found[str(widest)]
    return {"recall": found, "sample": len(drawn)}


def _members(
    store: ShardStore, sizes: list[int], drawn: np.ndarray[Any, Any]
) -> tuple[Int32s, Float32s]:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    own, queries = [], []
    for number in range(len(sizes)):
        inside = drawn[(drawn >= starts[number]) & (drawn < starts[number + 1])] - starts[number]
        rows, vectors = store.arrays(number)
        own.append(rows[inside])
        queries.append(np.asarray(vectors[inside]))
    return np.concatenate(own), np.ascontiguousarray(np.concatenate(queries))


def _truth(index: ShardedIndex, own: Int32s, queries: Float32s, k: int) -> Float32s:
    best = np.empty((len(queries), 0), np.float32)
    for number in range(index.shards):
        rows, vectors = index.store.arrays(number)
        local, far = exact_search(queries, vectors, k + 1, space=index.config.space)
        far = np.where(rows[local] == own[:, None], np.float32(np.inf), far)
        nothing = np.full((len(queries), best.shape[1] + far.shape[1]), EMPTY, np.int32)
        best = sort_lists(nothing, np.concatenate([best, far], axis=1))[1][:, :k]
    if not np.isfinite(best).all():
        raise InputRejected("expected finite distances among the indexed vectors")
    return best
