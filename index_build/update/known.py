"""What a run knows of its lists: the k nearest that the matrix holds, and a reserve beyond them.

A list loses members and gains others; what an entry pushes out of the k nearest goes into the
reserve, and what leaves is made up from it. Each list says how far it is complete, so that neither
needs a search. Owns the two as one array of wider lists; refuses to decide what is in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

SCAN_ROWS = 65_536


def scanned(n: int) -> Iterator[slice]:
    """Rows 0..n-1 in the stretches in which lists are read."""
    return (slice(first, min(n, first + SCAN_ROWS)) for first in range(0, n, SCAN_ROWS))


@dataclass(frozen=True)
class Known:
    """neighbours, distances: [n, columns], sliceable by rows; reserve int32 and reserve_distances
    float32 [n, r]: the next ones, -1 and infinity in places that aren't known.
    """

    neighbours: Any
    distances: Any
    reserve: Int32s
    reserve_distances: Float32s

    def __len__(self) -> int:
        return len(self.reserve)

    def members(self, rows: slice) -> Int32s:
        """neighbours int32 [m, columns + r] of some rows."""
        return _beside(self.neighbours[rows], self.reserve[rows])

    def lists(self, rows: slice) -> tuple[Int32s, Float32s]:
        """neighbours, distances [m, columns + r] of some rows."""
        return self.members(rows), _beside(self.distances[rows], self.reserve_distances[rows])


def nothing_known(rows: int, places: int) -> tuple[Int32s, Float32s]:
    """Lists [rows, places] without members."""
    return np.full((rows, places), EMPTY, np.int32), np.full((rows, places), np.inf, np.float32)


def marked(n: int, *parts: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which of the rows 0..n-1 are in one of the parts."""
    mask = np.zeros(n, bool)
    for rows in parts:
        mask[rows] = True
    return mask


def within(rows: NDArray[Any], first: int, stop: int) -> tuple[int, int]:
    """Where first..stop-1 are among the ascending `rows`, as the ends of a slice."""
    # ends of another type would have all rows converted, each time
    low, high = np.searchsorted(rows, np.array([first, stop], rows.dtype))
    return int(low), int(high)


def _beside(nearest: Any, reserve: Any) -> Any:
    return np.concatenate([nearest, reserve], axis=1) if reserve.shape[1] else nearest
