"""NMSLIB's graphs: HNSW and the small-world graph, over the full vectors.

Saved as two files, the graph and the vectors; a changed file can end the process that loads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from benchmark.methods.base import Holds, Index, Method, ladder
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

FACTORS = (1, 1.5, 2, 3, 4, 6, 8, 16)
LEAST = 16
FILE = "index.nmslib"
FILES = (FILE, f"{FILE}.dat")
SPACE_NAMES: dict[SpaceName, str] = {"l2": "l2", "cosine": "l2", "ip": "negdotprod"}
"""Prepared vectors have unit length under cosine, where Euclidean order is the order of angles."""


class _Nmslib(Index):
    def efforts(self, k: int) -> Sequence[int]:
        return ladder(k, FACTORS, least=LEAST)

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        self.native.setQueryTimeParams({"efSearch": effort})
        found = np.full((len(queries), k), EMPTY, np.int32)
        answers = self.native.knnQueryBatch(queries, k=k, num_threads=self.threads)
        for row, (near, _) in enumerate(answers):
            found[row, : len(near)] = near
        return found

    def _save(self, folder: Path) -> Sequence[str]:
        self.native.saveIndex(str(folder / FILE), save_data=True)
        return FILES


class NmslibMethod(Method):
    """A graph of NMSLIB; a subclass gives its name there and its parameters."""

    library: ClassVar[str] = "nmslib"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = "efSearch"
    native_name: ClassVar[str]

    def settings(self, threads: int) -> Mapping[str, Any]:
        """Parameters as NMSLIB names them."""
        raise NotImplementedError

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """NMSLIB takes no seed; with several threads the graph differs from build to build."""
        native = self.require().init(method=self.native_name, space=SPACE_NAMES[space])
        native.addDataPointBatch(vectors)
        native.createIndex(dict(self.settings(threads)))
        return _Nmslib(native, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        native = self.require().init(method=self.native_name, space=SPACE_NAMES[holds.space])
        native.loadIndex(str(folder / FILE), load_data=True)
        if len(native) != holds.n:
            raise ValueError(f"it holds {len(native)} vectors")
        return _Nmslib(native, self, holds, threads)


@dataclass(frozen=True)
class NmslibHnsw(NmslibMethod):
    """HNSW: a layered neighbour graph. Effort is efSearch."""

    links: Annotated[int, Meta(ge=2, le=512)] = 16
    build_effort: Annotated[int, Meta(ge=1)] = 200

    name: ClassVar[str] = "nmslib-hnsw"
    native_name: ClassVar[str] = "hnsw"

    def bytes_per_row(self, d: int) -> float:
        """The vectors twice, once beside their links, and twice the links, as int32."""
        return 8 * d + 8 * self.links + 60

    def settings(self, threads: int) -> Mapping[str, Any]:
        """See `NmslibMethod.settings`."""
        return {
            "M": self.links,
            "efConstruction": self.build_effort,
            "post": 0,
            "indexThreadQty": threads,
        }


@dataclass(frozen=True)
class NmslibSwGraph(NmslibMethod):
    """The small-world graph, HNSW's flat forerunner. Effort is efSearch."""

    links: Annotated[int, Meta(ge=2, le=512)] = 16
    build_effort: Annotated[int, Meta(ge=1)] = 200

    name: ClassVar[str] = "nmslib-sw-graph"
    native_name: ClassVar[str] = "sw-graph"

    def bytes_per_row(self, d: int) -> float:
        """The vectors and the links, which others add to."""
        return 4 * d + 11 * self.links + 20

    def settings(self, threads: int) -> Mapping[str, Any]:
        """See `NmslibMethod.settings`."""
        return {
            "NN": self.links,
            "efConstruction": self.build_effort,
            "indexThreadQty": threads,
        }
