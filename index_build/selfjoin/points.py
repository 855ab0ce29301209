"""What is joined: points, numbered without gaps, that stand for rows of a vector array."""

from dataclasses import dataclass, replace

import numpy as np

from index_build.selfjoin.pack import scale_for
from nearfield.space import Float32s, Int32s

SCALE_SAMPLE = 4_096


@dataclass(frozen=True)
class Points:
    """Point p is vectors[rows[p]]; `scale` as in `pack.scale_for`. Vectors are never copied."""

    vectors: Float32s
    rows: Int32s
    scale: np.float32

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, first: int, stop: int) -> "Points":
        """Points first..stop-1."""
        return replace(self, rows=self.rows[first:stop])

    def chosen(self, points: Int32s) -> "Points":
        """The given points, renumbered in that order."""
        return replace(self, rows=self.rows[points])


def frozen(vectors: Float32s) -> Float32s:
    """A read-only view: kernels are compiled once, for that, whether vectors are mapped or made."""
    view = vectors.view(np.ndarray)
    view.flags.writeable = False
    return view


def points_of(vectors: Float32s, rows: Int32s, seed: int) -> Points:
    """The points that stand for the given rows, ascending and without repeats."""
    size = min(len(rows), SCALE_SAMPLE)
    some = np.random.default_rng((seed, 2)).choice(rows, size, replace=False)
    return Points(frozen(vectors), rows, scale_for(vectors, some))
