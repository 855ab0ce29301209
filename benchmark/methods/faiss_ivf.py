"""faiss IVF-flat: inverted lists around k-means centres."""

from collections.abc import Sequence
from typing import Any, ClassVar

import faiss
import numpy as np

from benchmark.methods.base import Index, Method
from nearfield.space import Float32s, Int32s, SpaceName

ROWS_PER_LIST = 256
TRAINING_ROWS_PER_LIST = 64


class FaissIvf(Method):
    """Effort is the number of lists probed."""

    name: ClassVar[str] = "faiss-ivf"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})

    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """See `Method.build`."""
        faiss.omp_set_num_threads(threads)
        n, d = vectors.shape
        lists = max(1, n // ROWS_PER_LIST)
        flat = faiss.IndexFlatIP(d) if space == "ip" else faiss.IndexFlatL2(d)
        metric = faiss.METRIC_INNER_PRODUCT if space == "ip" else faiss.METRIC_L2
        index = faiss.IndexIVFFlat(flat, d, lists, metric)
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
        index.train(vectors)
        index.add(vectors)
        return _Built(index, lists)


class _Built(Index):
    def __init__(self, index: Any, lists: int) -> None:
        self.index, self.lists = index, lists

    def efforts(self, k: int) -> Sequence[int]:
        first = max(1, k // ROWS_PER_LIST)
        ladder = [first * factor for factor in (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)]
        return [*(probes for probes in ladder if probes < self.lists), self.lists]

    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        parameters = faiss.SearchParametersIVF(nprobe=effort)
        return self.index.search(queries, k, params=parameters)[1].astype(np.int32)
