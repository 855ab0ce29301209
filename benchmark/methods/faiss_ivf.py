"""faiss IVF-flat: inverted lists around k-means centres."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import faiss
from msgspec import Meta

from benchmark.methods.faiss_index import FaissIndex, FaissMethod, flat, metric
from nearfield.space import Float32s, SpaceName

PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)


def train(index: Any, vectors: Float32s, seed: int, rows_per_list: int) -> None:
    """k-means on at most `rows_per_list` rows for each list; few rows aren't worth a warning."""
    index.cp.seed = seed + 1
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = rows_per_list
    index.train(vectors)


def probes(lists: int, rows_per_list: int, k: int) -> Sequence[int]:
    """Numbers of lists to probe for k neighbours, up to all lists."""
    first = max(1, k // rows_per_list)
    return [*(p for p in (first * factor for factor in PROBES) if p < lists), lists]


class _Ivf(FaissIndex):
    method: "FaissIvf"

    def efforts(self, k: int) -> Sequence[int]:
        return probes(self.native.nlist, self.method.rows_per_list, k)

    def searching(self, effort: int) -> Any:
        return faiss.SearchParametersIVF(nprobe=min(effort, self.native.nlist))


@dataclass(frozen=True)
class FaissIvf(FaissMethod):
    """n // rows_per_list lists; effort is the number of lists probed, all of them being exact."""

    rows_per_list: Annotated[int, Meta(ge=1)] = 256
    training_rows_per_list: Annotated[int, Meta(ge=1)] = 64

    name: ClassVar[str] = "faiss-ivf"
    effort: ClassVar[str] = "nprobe"
    index: ClassVar[type[FaissIndex]] = _Ivf

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """See `FaissMethod.make`."""
        n, d = vectors.shape
        lists = max(1, n // self.rows_per_list)
        index = faiss.IndexIVFFlat(flat(d, space), d, lists, metric(space))
        train(index, vectors, seed, self.training_rows_per_list)
        index.add(vectors)
        return index
