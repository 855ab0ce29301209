"""faiss NN-descent: a graph of all rows, refined until it changes little; can also be searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import faiss
import numpy as np
from msgspec import Meta

from benchmark.methods.base import ladder
from benchmark.methods.faiss_index import FaissIndex, FaissMethod, flat, metric
from nearfield.space import Float32s, Int32s, SpaceName

FACTORS = (1, 1.5, 2, 3, 4, 6, 8, 16)
LEAST = 32
SPARE = 50
"""Candidates that faiss keeps beyond the links while it refines (its own default)."""
FEW_ROWS = 1_000
"""faiss needs more than 100 rows, and more than it keeps candidates."""


class _NnDescent(FaissIndex):
    method: "FaissNnDescent"

    def efforts(self, k: int) -> Sequence[int]:
        return ladder(k, FACTORS, least=LEAST) if self.graph else [0]

    @property
    def graph(self) -> bool:
        """Whether there were rows enough for a graph."""
        return isinstance(self.native, faiss.IndexNNDescent)

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        faiss.omp_set_num_threads(self.threads)
        if self.graph:
            self.native.nndescent.search_L = min(max(effort, k), self.holds.n)
        return self.native.search(queries, k)[1].astype(np.int32)


@dataclass(frozen=True)
class FaissNnDescent(FaissMethod):
    """Effort is search_L, the length of the queue. Up to `FEW_ROWS` rows, or 4 x links of them, the
    index is flat and exact. The graph of all rows has at least k links, whatever `links` says.
    """

    links: Annotated[int, Meta(ge=4, le=2048)] = 64
    iterations: Annotated[int, Meta(ge=1)] = 10

    name: ClassVar[str] = "faiss-nndescent"
    effort: ClassVar[str] = "search_L"
    adds: ClassVar[bool] = False
    graphs: ClassVar[bool] = True
    index: ClassVar[type[FaissIndex]] = _NnDescent

    def bytes_per_row(self, d: int) -> float:
        """The vectors and the links, as int32."""
        return 4 * d + 4 * self.links

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """See `FaissMethod.make`."""
        return self._made(vectors, space, seed, self.links)

    def _made(self, vectors: Float32s, space: SpaceName, seed: int, links: int) -> Any:
        n, d = vectors.shape
        if n <= max(FEW_ROWS, 4 * links):
            index = flat(d, space)
        else:
            index = faiss.IndexNNDescentFlat(d, links, metric(space))
            index.nndescent.random_seed = seed + 1
            index.nndescent.iter = self.iterations
            index.nndescent.L = links + SPARE
        index.add(vectors)
        return index

    def _graph(
        self, vectors: Float32s, k: int, space: SpaceName, *, threads: int, seed: int
    ) -> Int32s:
        faiss.omp_set_num_threads(threads)
        index = self._made(vectors, space, seed, max(self.links, k))
        if not isinstance(index, faiss.IndexNNDescent):
            return index.search(vectors, min(k + 1, len(vectors)))[1].astype(np.int32)
        return faiss.vector_to_array(index.nndescent.final_graph).reshape(len(vectors), -1)
