"""faiss IVF-PQ: inverted lists of compressed vectors; the nearest are ranked again in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import faiss
from msgspec import Meta

from benchmark.methods.faiss_index import FaissIndex, FaissMethod, flat, metric
from benchmark.methods.faiss_ivf import probes, train
from nearfield.space import Float32s, SpaceName

MOST_BITS = 8
PER_CENTROID = 39
"""Rows per centroid below which faiss warns; few rows mean fewer bits instead."""


class _IvfPq(FaissIndex):
    method: "FaissIvfPq"

    def efforts(self, k: int) -> Sequence[int]:
        if not self.compressed:
            return [0]
        lists = faiss.downcast_index(self.native.base_index).nlist
        return probes(lists, self.method.rows_per_list, k)

    def searching(self, effort: int) -> Any:
        if not self.compressed:
            return None
        return faiss.IndexRefineSearchParameters(
            k_factor=self.method.rerank,
            base_index_params=faiss.SearchParametersIVF(nprobe=max(1, effort)),
        )

    @property
    def compressed(self) -> bool:
        """Whether there were rows enough to train codes."""
        return isinstance(self.native, faiss.IndexRefine)


@dataclass(frozen=True)
class FaissIvfPq(FaissMethod):
    """Effort is the number of lists probed.

    A code stands for the most dimensions that divide d, up to `code_dims`. A code has 8 bits, fewer
    where n is below 256 x 39; below 2 x 39 rows nothing is compressed and the index is flat. For k
    neighbours, `rerank` x k candidates are compared again with their full vectors, which are kept.
    """

    rows_per_list: Annotated[int, Meta(ge=1)] = 256
    training_rows_per_list: Annotated[int, Meta(ge=1)] = 64
    code_dims: Annotated[int, Meta(ge=1)] = 4
    rerank: Annotated[int, Meta(ge=1)] = 4

    name: ClassVar[str] = "faiss-ivfpq"
    effort: ClassVar[str] = "nprobe"
    index: ClassVar[type[FaissIndex]] = _IvfPq

    def bytes_per_row(self, d: int) -> float:
        """The vectors and their codes."""
        return 4 * d + d / self.code_dims + 16

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """See `FaissMethod.make`."""
        n, d = vectors.shape
        bits = min(MOST_BITS, (n // PER_CENTROID).bit_length() - 1)
        if bits < 1:
            index = flat(d, space)
            index.add(vectors)
            return index
        lists = max(1, n // self.rows_per_list)
        codes = d // code_width(d, self.code_dims)
        quantizer = flat(d, space)
        coded = faiss.IndexIVFPQ(quantizer, d, lists, codes, bits, metric(space))
        coded.pq.cp.seed = seed + 1
        train(coded, vectors, seed, self.training_rows_per_list)
        index = faiss.IndexRefineFlat(coded)
        index.add(vectors)
        return index


def code_width(d: int, most: int) -> int:
    """Dimensions per code: the greatest divisor of d that is at most `most`."""
    return max(width for width in range(1, most + 1) if d % width == 0)
