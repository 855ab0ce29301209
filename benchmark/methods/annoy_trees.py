"""Annoy: a forest of random hyperplane trees. One package or another carries it, see `doctor`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from benchmark.methods.base import Index, Method
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

TREES = 50
METRICS: dict[SpaceName, str] = {"l2": "euclidean", "cosine": "euclidean", "ip": "dot"}
"""Prepared vectors have unit length under cosine, where Euclidean order is the order of angles."""


class Annoy(Method):
    """Effort is search_k, the number of nodes inspected."""

    name: ClassVar[str] = "annoy"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})

    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """See `Method.build`. The forest depends on the number of threads."""
        from annoy import AnnoyIndex

        index = AnnoyIndex(vectors.shape[1], METRICS[space])
        index.set_seed(seed)
        for row, vector in enumerate(vectors):
            index.add_item(row, vector)
        index.build(TREES, n_jobs=threads)
        return _Built(index, threads)


class _Built(Index):
    def __init__(self, index: Any, threads: int) -> None:
        self.index, self.threads = index, threads

    def efforts(self, k: int) -> Sequence[int]:
        return [TREES * (k + 1) * factor // 4 for factor in (1, 2, 4, 8, 16, 32, 64)]

    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        found = np.full((len(queries), k), EMPTY, np.int32)

        def ask(rows: range) -> None:
            for row in rows:
                near = self.index.get_nns_by_vector(queries[row], k, search_k=effort)
                found[row, : len(near)] = near

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(ask, (range(i, len(queries), self.threads) for i in range(self.threads))))
        return found
