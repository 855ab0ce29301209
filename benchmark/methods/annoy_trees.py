"""Annoy: a forest of random hyperplane trees. One package or another carries it, see `doctor`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from benchmark.methods.base import Holds, Index, Method, ladder
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)
FILE = "index.ann"
METRICS: dict[SpaceName, str] = {"l2": "euclidean", "cosine": "euclidean", "ip": "dot"}
"""Prepared vectors have unit length under cosine, where Euclidean order is the order of angles."""


class _Annoy(Index):
    method: "Annoy"

    def efforts(self, k: int) -> Sequence[int]:
        return [self.method.trees * effort for effort in ladder(k, FACTORS)]

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        found = np.full((len(queries), k), EMPTY, np.int32)

        def ask(rows: range) -> None:
            for row in rows:
                near = self.native.get_nns_by_vector(queries[row], k, search_k=effort)
                found[row, : len(near)] = near

        if self.threads == 1 or len(queries) == 1:
            ask(range(len(queries)))
            return found
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(ask, (range(i, len(queries), self.threads) for i in range(self.threads))))
        return found

    def _save(self, folder: Path) -> Sequence[str]:
        self.native.save(str(folder / FILE))
        return (FILE,)


@dataclass(frozen=True)
class Annoy(Method):
    """Effort is search_k, the number of nodes inspected.

    A saved index is mapped in any case; loaded whole, its pages are read at once. Overwriting a
    file that is mapped kills its readers. Annoy doesn't notice a file cut between two nodes.
    """

    trees: Annotated[int, Meta(ge=1)] = 50

    name: ClassVar[str] = "annoy"
    library: ClassVar[str] = "annoy"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = "search_k"
    maps: ClassVar[bool] = True

    def bytes_per_row(self, d: int) -> float:
        """The vectors, and of each tree a place in a leaf and a share of the splits."""
        return 4 * d + 12 * self.trees + 16

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """The forest depends on the number of threads."""
        native = self.require().AnnoyIndex(vectors.shape[1], METRICS[space])
        native.set_seed(seed)
        for row, vector in enumerate(vectors):
            native.add_item(row, vector)
        native.build(self.trees, n_jobs=threads)
        return _Annoy(native, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        native = self.require().AnnoyIndex(holds.d, METRICS[holds.space])
        native.load(str(folder / FILE), prefault=not mapped)
        if native.get_n_items() != holds.n:
            raise ValueError(f"it holds {native.get_n_items()} vectors")
        return _Annoy(native, self, holds, threads)
