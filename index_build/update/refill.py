"""Lists that lost a member: which they are, and what stays in them while they are filled up.

Nothing may be missed here, so every list is looked at. What a list still has needn't be found
again: the search of it is for what comes in place of the lost, and its finds join the rest.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel, run_parallel
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

SCAN_ROWS = 65_536


def scanned(n: int) -> Iterator[slice]:
    """Rows 0..n-1 in the stretches in which lists are read."""
    return (slice(first, min(n, first + SCAN_ROWS)) for first in range(0, n, SCAN_ROWS))


def lists_that_lost(lists: Any, away: NDArray[np.bool_], *, threads: int) -> NDArray[np.bool_]:
    """Whether each of the lists [n, k] (sliceable) names a row that is `away`, bool [n].

    away: bool, by row. Cost: one look at every list.
    """
    blocks = list(scanned(len(lists)))
    lost = np.zeros(len(lists), bool)

    def look(number: int) -> None:
        _name(lists[blocks[number]], away, lost[blocks[number]])

    run_parallel(look, range(len(blocks)), threads)
    return lost


def keep_members(
    lists: tuple[Any, Any], rows: Int32s, away: NDArray[np.bool_],
    found: tuple[Int32s, Float32s], *, threads: int,
) -> None:  # fmt: skip
    """Bring what is left of the old lists of `rows` into what was found for them, in place.

    lists: old neighbours and distances [n, k], sliceable; rows int32 [m], ascending; found:
    neighbours and distances [m, k], by (distance, row) before and after.
    """
    blocks = list(scanned(len(lists[0])))

    def one(number: int) -> None:
        stretch = blocks[number]
        low, high = np.searchsorted(rows, (stretch.start, stretch.stop))
        if low == high:
            return
        inside = rows[low:high] - stretch.start
        near, far = (values[stretch][inside] for values in lists)
        _keep(near, far, away, found[0][low:high], found[1][low:high])

    run_parallel(one, range(len(blocks)), threads)


@kernel
def _name(lists: Int32s, away: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """Empty places have no member that could be away."""
    for i in range(len(lists)):
        for j in range(lists.shape[1]):
            out[i] |= lists[i, j] >= 0 and away[lists[i, j]]


@kernel
def _keep(
    old: Int32s, old_far: Float32s, away: NDArray[np.bool_], near: Int32s, far: Float32s
) -> None:
    k = near.shape[1]
    found, found_far = np.empty(k, np.int32), np.empty(k, np.float32)
    for i in range(len(near)):
        found[:], found_far[:] = near[i], far[i]
        near[i], far[i] = EMPTY, np.inf
        a, b = 0, 0
        for place in range(k):
            while a < k and (old[i, a] < 0 or away[old[i, a]]):
                a += 1
            # a changed recording is away with its old vector, and may be found with the new one
            while b < k and found[b] >= 0 and not away[found[b]] and (old[i] == found[b]).any():
                b += 1
            ended = b == k or found[b] < 0
            if a < k and (ended or _before(old_far[i, a], old[i, a], found_far[b], found[b])):
                near[i, place], far[i, place] = old[i, a], old_far[i, a]
                a += 1
            elif not ended:
                near[i, place], far[i, place] = found[b], found_far[b]
                b += 1


@kernel
def _before(left_far: float, left: int, right_far: float, right: int) -> bool:
    return left_far < right_far or (left_far == right_far and left < right)
