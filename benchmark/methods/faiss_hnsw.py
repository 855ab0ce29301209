"""faiss HNSW: a layered neighbour graph over the full vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import faiss
from msgspec import Meta

from benchmark.methods.base import ladder
from benchmark.methods.faiss_index import FaissIndex, FaissMethod, metric
from nearfield.space import Float32s, SpaceName

FACTORS = (1, 1.5, 2, 3, 4, 6, 8, 16)
LEAST = 16


class _Hnsw(FaissIndex):
    def efforts(self, k: int) -> Sequence[int]:
        return ladder(k, FACTORS, least=LEAST)

    def searching(self, effort: int) -> Any:
        return faiss.SearchParametersHNSW(efSearch=effort)


@dataclass(frozen=True)
class FaissHnsw(FaissMethod):
    """Effort is efSearch. Built with several threads, the graph differs from build to build."""

    links: Annotated[int, Meta(ge=2, le=512)] = 16
    build_effort: Annotated[int, Meta(ge=1)] = 200

    name: ClassVar[str] = "faiss-hnsw"
    effort: ClassVar[str] = "efSearch"
    index: ClassVar[type[FaissIndex]] = _Hnsw

    def bytes_per_row(self, d: int) -> float:
        """The vectors and twice the links, as int32."""
        return 4 * d + 8 * self.links + 20

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """See `FaissMethod.make`."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.links, metric(space))
        index.hnsw.rng = faiss.RandomGenerator(seed + 1)
        index.hnsw.efConstruction = self.build_effort
        index.add(vectors)
        return index
