"""faiss flat: every vector compared with every query, in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmark.methods.faiss_index import FaissIndex, FaissMethod, flat
from nearfield.space import Float32s, SpaceName


class _Flat(FaissIndex):
    def efforts(self, k: int) -> Sequence[int]:
        return [0]

    def searching(self, effort: int) -> Any:
        return None


@dataclass(frozen=True)
class FaissFlat(FaissMethod):
    """Nothing to tune. Ties and near ties are ordered as float32 products round."""

    name: ClassVar[str] = "faiss-flat"
    effort: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    index: ClassVar[type[FaissIndex]] = _Flat

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """See `FaissMethod.make`."""
        index = flat(vectors.shape[1], space)
        index.add(vectors)
        return index
