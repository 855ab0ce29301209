"""The partition as arrays: who lives in a cell, who visits it, and which cells a point visits.

A point has one home cell and visits others. The join compares home with home and visitors with
home, never visitors with visitors. Owns the rule that a pair is met once: when each of two points
visits the other's home, they meet in the home with the lower number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel
from nearfield.space import Float32s, Int32s

Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Lists of int32 end to end: list i is values[starts[i] : starts[i + 1]]."""

    starts: Int64s
    values: Int32s

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> Int32s:
        return self.values[self.starts[i] : self.starts[i + 1]]

    @property
    def sizes(self) -> Int64s:
        """Length of each list."""
        return np.diff(self.starts)

    def part(self, first: int, stop: int) -> "Lists":
        """Lists first..stop-1."""
        starts = self.starts[first : stop + 1]
        return Lists(starts - starts[0], self.values[starts[0] : starts[-1]])

    def chosen(self, lists: Int32s) -> "Lists":
        """The given lists, in that order."""
        sizes = self.sizes[lists]
        starts = starts_of(sizes)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        return Lists(starts, self.values[np.repeat(self.starts[lists], sizes) + within])


def lists_by(keys: Int32s, values: Int32s, lists: int) -> Lists:
    """Values grouped by key 0..lists-1, in their order within each. Cost O(values)."""
    starts = starts_of(np.bincount(keys, minlength=lists))
    grouped = np.empty_like(values)
    _group(keys, values, starts[:-1].copy(), grouped)
    return Lists(starts, grouped)


@kernel
def _group(keys: Int32s, values: Int32s, places: Int64s, out: Int32s) -> None:
    for i in range(len(keys)):
        out[places[keys[i]]] = values[i]
        places[keys[i]] += 1


def starts_of(sizes: NDArray[np.integer]) -> Int64s:
    """Where lists of these sizes start when laid end to end; one longer than sizes."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


@dataclass(frozen=True)
class Cells:
    """A partition of points 0..u-1 into cells 0..c-1.

    centres: float32 [c, d]. home: int32 [u]. visited: the cells that each point visits, its home
    not among them. residents, visitors: the points of each cell, ascending.

    In a shard, centres, residents and visitors are those of its own cells, of which the first has
    number `first` in `home` and `visited`.
    """

    centres: Float32s
    home: Int32s
    visited: Lists
    residents: Lists
    visitors: Lists
    first: int = 0

    @property
    def pairs_per_point(self) -> float:
        """Distances computed per point by the join."""
        residents = self.residents.sizes
        return float((residents * (residents + self.visitors.sizes)).sum() / max(1, len(self.home)))


def cells_of(centres: Float32s, home: Int32s, visited: Lists) -> Cells:
    """The partition from the points' side, completed by the cells' side. Cost O(u + visits)."""
    points = np.arange(len(home), dtype=np.int32)
    return Cells(
        centres=centres,
        home=home,
        visited=visited,
        residents=lists_by(home, points, len(centres)),
        visitors=lists_by(visited.values, np.repeat(points, visited.sizes), len(centres)),
    )
