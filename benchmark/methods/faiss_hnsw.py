"""faiss HNSW: a layered neighbour graph over the full vectors."""

from collections.abc import Sequence
from typing import Any, ClassVar

import faiss
import numpy as np

from benchmark.methods.base import Index, Method
from nearfield.space import Float32s, Int32s, SpaceName

LINKS = 16
BUILD_EFFORT = 200


class FaissHnsw(Method):
    """Effort is efSearch. Built with several threads, the graph differs from build to build."""

    name: ClassVar[str] = "faiss-hnsw"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})

    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """See `Method.build`."""
        faiss.omp_set_num_threads(threads)
        metric = faiss.METRIC_INNER_PRODUCT if space == "ip" else faiss.METRIC_L2
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, metric)
        index.hnsw.rng = faiss.RandomGenerator(seed + 1)
        index.hnsw.efConstruction = BUILD_EFFORT
        index.add(vectors)
        return _Built(index)


class _Built(Index):
    def __init__(self, index: Any) -> None:
        self.index = index

    def efforts(self, k: int) -> Sequence[int]:
        return [max(16, int(factor * (k + 1))) for factor in (1, 1.5, 2, 3, 4, 6, 8, 16)]

    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return self.index.search(queries, k, params=parameters)[1].astype(np.int32)
