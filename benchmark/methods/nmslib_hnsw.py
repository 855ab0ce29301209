"""NMSLIB's HNSW: a layered neighbour graph over the full vectors."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from benchmark.methods.base import Index, Method
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

LINKS = 16
BUILD_EFFORT = 200
SPACE_NAMES: dict[SpaceName, str] = {"l2": "l2", "cosine": "l2", "ip": "negdotprod"}
"""Prepared vectors have unit length under cosine, where Euclidean order is the order of angles."""


class NmslibHnsw(Method):
    """Effort is efSearch. Built with several threads, the graph differs from build to build."""

    name: ClassVar[str] = "nmslib-hnsw"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})

    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """See `Method.build`. NMSLIB takes no seed."""
        import nmslib

        index = nmslib.init(method="hnsw", space=SPACE_NAMES[space])
        index.addDataPointBatch(vectors)
        index.createIndex(
            {"M": LINKS, "efConstruction": BUILD_EFFORT, "post": 0, "indexThreadQty": threads}
        )
        return _Built(index, threads)


class _Built(Index):
    def __init__(self, index: Any, threads: int) -> None:
        self.index, self.threads = index, threads

    def efforts(self, k: int) -> Sequence[int]:
        return [max(16, int(factor * (k + 1))) for factor in (1, 1.5, 2, 3, 4, 6, 8, 16)]

    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        self.index.setQueryTimeParams({"efSearch": effort})
        found = np.full((len(queries), k), EMPTY, np.int32)
        answers = self.index.knnQueryBatch(queries, k=k, num_threads=self.threads)
        for row, (near, _) in enumerate(answers):
            found[row, : len(near)] = near
        return found
