"""What all faiss methods share: metric, threads, one file per index, mapping it.

Owns no method.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from benchmark.methods.base import Holds, Index, Method
from nearfield.space import Float32s, Int32s, SpaceName

FILE = "index.faiss"
MAPPED = faiss.IO_FLAG_MMAP_IFC
"""Leaves flat vectors, inverted lists, codes and graphs on disk; IO_FLAG_MMAP only the lists."""


def metric(space: SpaceName) -> int:
    """faiss' number for the metric; under cosine prepared vectors have unit length."""
    return int(faiss.METRIC_INNER_PRODUCT if space == "ip" else faiss.METRIC_L2)


def flat(d: int, space: SpaceName) -> Any:
    """An empty flat index: the vectors themselves, compared one by one."""
    return faiss.IndexFlat(d, metric(space))


class FaissMethod(Method):
    """A faiss index in one file. A subclass names its `Index` and makes the native index."""

    library: ClassVar[str] = "faiss"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    adds: ClassVar[bool] = True
    maps: ClassVar[bool] = True
    concurrent: ClassVar[bool] = True
    index: ClassVar[type["FaissIndex"]]

    def make(self, vectors: Float32s, space: SpaceName, seed: int) -> Any:
        """The native index, filled."""
        raise NotImplementedError

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        faiss.omp_set_num_threads(threads)
        native = self.make(vectors, space, seed)
        return self.index(native, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        native = faiss.read_index(str(folder / FILE), MAPPED if mapped else 0)
        if (native.ntotal, native.d) != (holds.n, holds.d):
            raise ValueError(f"it holds {native.ntotal} vectors of {native.d} dimensions")
        return self.index(native, self, holds, threads)


class FaissIndex(Index):
    """A faiss index; its search takes the parameters that `searching` makes of an effort."""

    def searching(self, effort: int) -> Any:
        """faiss' search parameters for an effort."""
        raise NotImplementedError

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        faiss.omp_set_num_threads(self.threads)
        found = self.native.search(queries, k, params=self.searching(effort))[1]
        return found.astype(np.int32)  # faiss' are int64

    def _add(self, vectors: Float32s) -> None:
        faiss.omp_set_num_threads(self.threads)
        self.native.add(vectors)

    def _save(self, folder: Path) -> Sequence[str]:
        faiss.write_index(self.native, str(folder / FILE))
        return (FILE,)
