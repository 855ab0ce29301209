"""PyNNDescent: NN-descent started from random projection trees, then a pruned graph to search.

The library compiles itself when it is first used, which takes about a minute. A saved index is a
pickle: load only what you wrote, after checking its checksum.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from benchmark.methods.base import Holds, Index, Method
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

EFFORTS = (0, 5, 10, 15, 20, 30, 40, 60)
PERCENT = 100
FILE = "index.pickle"
METRICS: dict[SpaceName, str] = {"l2": "euclidean", "cosine": "euclidean", "ip": "inner_product"}
FEW_ROWS = 100
"""Up to here its random trees don't reach every row: the vectors are compared one by one."""


class _PyNnDescent(Index):
    def efforts(self, k: int) -> Sequence[int]:
        return EFFORTS

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        _use_threads(self.threads)
        if isinstance(self.native, np.ndarray):
            return exact_search(queries, self.native, k, space=self.holds.space)[0]
        found, distances = self.native.query(queries, k, epsilon=effort / PERCENT)
        # a place that it left empty names some row, again and again; infinitely far but under ip
        empty = ~np.isfinite(distances) if self.holds.space != "ip" else _repeats(found)
        return np.where(empty, EMPTY, found).astype(np.int32)

    def _add(self, vectors: Float32s) -> None:
        _use_threads(self.threads)
        if isinstance(self.native, np.ndarray):
            self.native = np.concatenate([self.native, vectors])
            return
        self.native.update(xs_fresh=vectors)
        self.native.prepare()

    def _save(self, folder: Path) -> Sequence[str]:
        with (folder / FILE).open("wb") as stream:
            pickle.dump(self.native, stream, protocol=pickle.HIGHEST_PROTOCOL)
        return (FILE,)


@dataclass(frozen=True)
class PyNnDescent(Method):
    """Effort is 100 x epsilon. The graph of all rows has at least k + 1 places, of which the row
    takes one, whatever `links` says. Up to `FEW_ROWS` rows search is exact.
    Under ip a batch is searched by one thread: the library's parallel search doesn't compile there.
    """

    links: Annotated[int, Meta(ge=2)] = 30

    name: ClassVar[str] = "pynndescent"
    library: ClassVar[str] = "pynndescent"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = "100 x epsilon"
    adds: ClassVar[bool] = True
    compiles: ClassVar[bool] = True
    graphs: ClassVar[bool] = True

    def bytes_per_row(self, d: int) -> float:
        """The vectors and the links both ways, and its trees' planes."""
        return 4.4 * d + 9 * self.links + 70

    def _made(
        self, vectors: Float32s, space: SpaceName, threads: int, seed: int, links: int
    ) -> Any:
        return self.require().NNDescent(
            vectors,
            metric=METRICS[space],
            n_neighbors=min(links, len(vectors)),
            random_state=seed,
            n_jobs=threads,
            parallel_batch_queries=threads > 1 and space != "ip",
        )

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        if len(vectors) <= FEW_ROWS:
            return _PyNnDescent(vectors, self, Holds(space, *vectors.shape), threads)
        native = self._made(vectors, space, threads, seed, self.links)
        native.prepare()
        return _PyNnDescent(native, self, Holds(space, *vectors.shape), threads)

    def _graph(
        self, vectors: Float32s, k: int, space: SpaceName, *, threads: int, seed: int
    ) -> Int32s:
        if len(vectors) <= FEW_ROWS:
            return exact_search(vectors, vectors, k + 1, space=space)[0]
        links = max(self.links, k + 1)
        graph = self._made(vectors, space, threads, seed, links).neighbor_graph[0]
        return graph.astype(np.int32)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        self.require()
        with (folder / FILE).open("rb") as stream:
            native = pickle.load(stream)  # noqa: S301  (the docstring says what follows)
        return _PyNnDescent(native, self, holds, threads)


def _use_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _repeats(found: Int32s) -> NDArray[np.bool_]:
    """Which places [q, k] name a row that stands further left already."""
    order = np.argsort(found, axis=1, kind="stable")
    sorted_rows = np.take_along_axis(found, order, 1)
    again = np.zeros(found.shape, np.bool_)
    np.put_along_axis(again, order[:, 1:], sorted_rows[:, 1:] == sorted_rows[:, :-1], 1)
    return again
