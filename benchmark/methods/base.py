"""The contract that a library fills to become a method, and the matrix by asking for every row.

Owns what all methods share: tuning the search effort to an asked recall, dropping the row itself,
recomputing distances. A library's file owns its parameters and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nearfield.distances import list_distances, sort_lists
from nearfield.errors import InputRejected
from nearfield.exact import exact_search
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

SAMPLE = 200
"""Rows on which the recall of an effort is measured."""
BATCH = 16_384


@dataclass(frozen=True)
class Asked:
    """What is asked of a method: k neighbours in a space at a recall, with threads and a seed."""

    k: int
    space: SpaceName
    recall: float
    threads: int
    seed: int


class Index(ABC):
    """A built index over n vectors."""

    @abstractmethod
    def efforts(self, k: int) -> Sequence[int]:
        """Search efforts worth trying for k neighbours, cheapest first; the last is the most."""

    @abstractmethod
    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        """Rows int32 [q, k] of near vectors in any order, -1 where the library found fewer."""


class Method(ABC):
    """A library with its build parameters."""

    name: ClassVar[str]
    spaces: ClassVar[frozenset[SpaceName]]

    @abstractmethod
    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        """Index prepared vectors float32 [n >= 1, d], C order, finite."""


def neighbours_of_all(method: Method, vectors: Float32s, asked: Asked) -> tuple[Int32s, Float32s]:
    """Neighbours int32 and distances float32 [n, min(k, n - 1)] of every row by querying with it.

    vectors: prepared, float32 [n, d]. The effort is the cheapest whose recall on a seeded sample
    reaches `asked.recall`, else the greatest. A row is never its own neighbour; lists are sorted by
    (distance, row) and -1 / infinity fill places that the library left empty. Raises
    `InputRejected` for a space that the method lacks. Cost: one build, n queries of k + 1.
    """
    if asked.space not in method.spaces:
        raise InputRejected(
            f"{method.name} has no space {asked.space}; it has {', '.join(sorted(method.spaces))}"
        )
    index = method.build(vectors, asked.space, threads=asked.threads, seed=asked.seed)
    columns = min(asked.k, len(vectors) - 1)
    effort = _cheapest_effort(index, vectors, asked)
    neighbours = np.empty((len(vectors), columns), np.int32)
    distances = np.empty((len(vectors), columns), np.float32)
    for start in range(0, len(vectors), BATCH):
        rows = np.arange(start, min(start + BATCH, len(vectors)), dtype=np.int32)
        part = slice(start, start + len(rows))
        neighbours[part], distances[part] = _lists(index, vectors, rows, asked, effort)
    return neighbours, distances


def _lists(
    index: Index, vectors: Float32s, rows: Int32s, asked: Asked, effort: int
) -> tuple[Int32s, Float32s]:
    columns = min(asked.k, len(vectors) - 1)
    queries = np.ascontiguousarray(vectors[rows])
    found = index.search(queries, columns + 1, effort)
    found[found == rows[:, None]] = EMPTY
    neighbours, distances = sort_lists(found, list_distances(queries, vectors, found, asked.space))
    return neighbours[:, :columns], distances[:, :columns]


def _cheapest_effort(index: Index, vectors: Float32s, asked: Asked) -> int:
    n = len(vectors)
    chosen = np.random.default_rng(asked.seed).choice(n, min(SAMPLE, n), replace=False)
    rows = np.sort(chosen).astype(np.int32)
    _, truth = exact_search(vectors[rows], vectors, asked.k, space=asked.space, own_rows=rows)
    for effort in index.efforts(asked.k):
        _, found = _lists(index, vectors, rows, asked, effort)
        if tie_aware_recall(found, truth) >= asked.recall:
            break
    return effort


def tie_aware_recall(found: Float32s, truth: Float32s) -> float:
    """Share of places whose distance is at most the k-th true one (1 + 1e-6); both [m, k], sorted.

    The k-th distance may be negative under `ip`: the margin is taken of its magnitude.
    """
    if truth.shape[1] == 0:
        return 1.0
    kth = truth[:, -1:].astype(np.float64)
    return float((found <= kth + 1e-6 * np.abs(kth)).mean())
