"""The self-join as a method of the benchmark: `index_build.selfjoin_method:SelfJoin`.

Owns the translation, nothing of the join.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from benchmark.methods import Method, Workload
from benchmark.methods.base import marked
from index_build import selfjoin
from index_build.selfjoin import knn_matrix
from index_build.selfjoin.matrix import SMALL
from nearfield.libraries import Library
from nearfield.space import Float32s, Int32s, SpaceName


@dataclass(frozen=True)
class SelfJoin(Method):
    """Makes the lists of all rows; there is no index to query. `recall` is what it aims for."""

    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95

    name: ClassVar[str] = "selfjoin"
    library: ClassVar[str] = "numba"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = ""
    workloads: ClassVar[frozenset[Workload]] = frozenset({"all"})
    graphs: ClassVar[bool] = True
    compiles: ClassVar[bool] = True
    warm_rows: ClassVar[int] = SMALL + 1_000
    """Enough for cells."""

    @classmethod
    def built(cls) -> Library:
        """Numba's facts, marked with the join's source."""
        files = sorted(Path(selfjoin.__path__[0]).glob("*.py"))
        return marked(super().built(), "self-join", files)

    def _graph(
        self, vectors: Float32s, k: int, space: SpaceName, *, threads: int, seed: int
    ) -> Int32s:
        if k == 0:
            return np.empty((len(vectors), 0), np.int32)
        return knn_matrix(
            vectors, k, space=space, recall=self.recall, threads=threads, seed=seed
        ).neighbours
