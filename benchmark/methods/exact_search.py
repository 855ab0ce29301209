"""Exact search of nearfield itself: certified neighbours, the truth that others are held to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import faiss
import numba
import numpy as np

from benchmark.methods.base import Holds, Index, Method, marked
from nearfield import distances, exact
from nearfield.exact import exact_search
from nearfield.libraries import Library
from nearfield.space import Float32s, Int32s, SpaceName

FILE = "vectors.npy"


class _Exact(Index):
    native: Float32s

    def efforts(self, k: int) -> Sequence[int]:
        return [0]

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        faiss.omp_set_num_threads(self.threads)
        numba.set_num_threads(min(self.threads, numba.config.NUMBA_NUM_THREADS))
        return exact_search(queries, self.native, k, space=self.holds.space)[0]

    def _add(self, vectors: Float32s) -> None:
        self.native = np.concatenate([self.native, vectors])

    def _save(self, folder: Path) -> Sequence[str]:
        np.save(folder / FILE, self.native)
        return (FILE,)


@dataclass(frozen=True)
class Exact(Method):
    """Nothing to tune and nothing to build: the index is the vectors."""

    name: ClassVar[str] = "exact"
    library: ClassVar[str] = "faiss"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    adds: ClassVar[bool] = True
    maps: ClassVar[bool] = True

    @classmethod
    def built(cls) -> Library:
        """Faiss' facts, marked with the search's source."""
        files = [Path(str(module.__file__)) for module in (exact, distances)]
        return marked(super().built(), "exact search", files)

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        return _Exact(vectors, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        vectors = np.load(folder / FILE, mmap_mode="r" if mapped else None, allow_pickle=False)
        if vectors.shape != (holds.n, holds.d):
            raise ValueError(f"it holds vectors {list(vectors.shape)}")
        return _Exact(vectors, self, holds, threads)
