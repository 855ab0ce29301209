"""What was asked of the self-join, and what it tells about its work. Owns no decision."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from index_build.selfjoin.memory import Memory
from nearfield.space import Float32s, Int32s, SpaceName, pair_distances

TIE = 1e-6


@dataclass(frozen=True)
class Request:
    """What was asked for; see `knn_matrix`."""

    k: int
    space: SpaceName
    recall: float
    threads: int
    seed: int
    memory: Memory


@dataclass
class Report:
    """What was done: seconds per phase, parameters chosen, recall on the sample (1 when exact).

    method: `exact` (certified), `circle`, `line` (exact), `sweep` (all pairs in float32), `cells`.
    """

    method: str = "exact"
    seconds: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, float] = field(default_factory=dict)
    recall: float = 1.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to phase `name`."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def sampled_recall(
    vectors: Float32s, rows: Int32s, truth: Int32s, distances: Float32s, space: SpaceName
) -> float:
    """Tie-aware share of the true lists, rows [q, k] of `vectors`, that `distances` reach.

    A true list with -1 in it, of too few neighbours, is reached by every distance.
    """
    found = []
    for row, true, mine in zip(rows, truth, distances, strict=True):
        full = (true >= 0).all()
        kth = pair_distances(vectors[row], vectors[true], space).max() if full else np.inf
        found.append((mine <= kth + TIE * abs(kth)).mean())
    return float(np.mean(found))
