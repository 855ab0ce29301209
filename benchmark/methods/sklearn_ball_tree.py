"""scikit-learn's BallTree: exact, by nested balls; for few dimensions.

Saved as plain arrays, never as a pickle. scikit-learn keeps vectors in float64, and under cosine
compares prepared vectors as points, so inner products aren't offered.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from benchmark.methods.base import Holds, Index, Method
from nearfield.space import Float32s, Int32s, SpaceName

FILE = "index.npz"
ARRAYS = ("data", "order", "nodes", "bounds")
SCALARS = 7
"""Numbers that follow the arrays in the tree's state; the metric comes after them."""


class _BallTree(Index):
    def efforts(self, k: int) -> Sequence[int]:
        return [0]

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        def ask(part: Float32s) -> Any:
            return self.native.query(part, k, return_distance=False).astype(np.int32)

        if self.threads == 1 or len(queries) < 2 * self.threads:
            return ask(queries)
        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(ask, np.array_split(queries, self.threads))))

    def _save(self, folder: Path) -> Sequence[str]:
        state = self.native.__getstate__()
        arrays = dict(zip(ARRAYS, state, strict=False))
        scalars = np.array(state[len(ARRAYS) : len(ARRAYS) + SCALARS], np.int64)
        np.savez(folder / FILE, scalars=scalars, **arrays)
        return (FILE,)


@dataclass(frozen=True)
class BallTree(Method):
    """Exact, so nothing to tune at search."""

    leaf_size: Annotated[int, Meta(ge=1)] = 40

    name: ClassVar[str] = "ball-tree"
    library: ClassVar[str] = "sklearn.neighbors"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine"})
    effort: ClassVar[str] = ""
    exact: ClassVar[bool] = True

    def bytes_per_row(self, d: int) -> float:
        """The vectors as float64, and a share of the nodes' centres."""
        return 8.5 * d

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        native = self.require().BallTree(vectors, leaf_size=self.leaf_size)
        return _BallTree(native, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        from sklearn.metrics import DistanceMetric

        with np.load(folder / FILE, allow_pickle=False) as saved:
            arrays = [saved[name] for name in ARRAYS]
            scalars = saved["scalars"].tolist()
        if arrays[0].shape != (holds.n, holds.d):
            raise ValueError(f"it holds vectors {list(arrays[0].shape)}")
        tree = self.require().BallTree
        native = tree.__new__(tree)
        native.__setstate__((*arrays, *scalars, DistanceMetric.get_metric("euclidean"), None))
        return _BallTree(native, self, holds, threads)
