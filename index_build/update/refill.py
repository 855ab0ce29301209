"""Lists that lost a member: which they are, what stays in them, and what may take the place.

Nothing may be missed here, so every list is looked at. What a list still has needn't be found
again: the search of it is for what comes in place of the lost, which is little farther than the
last of its members was, so that far it looks at first. Its finds join the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel, run_parallel
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

SCAN_ROWS = 65_536
LEAST_MEMBERS = 8
"""So many say how dense it is around a list."""


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


@dataclass(frozen=True)
class Kept:
    """What is left of the old lists of some rows: neighbours and distances [m, k], empty places at
    the end; `known` int32 [m, k]: the same neighbours in the order of their rows, then `NOBODY`."""

    neighbours: Int32s
    distances: Float32s
    known: Int32s

    @property
    def places(self) -> Int32s:
        """Empty places of each list."""
        return np.count_nonzero(self.neighbours == EMPTY, axis=1).astype(np.int32)

    def padded(self, columns: int) -> tuple[Int32s, Float32s]:
        """The lists with so many places."""
        nothing = np.empty((len(self.neighbours), 0), np.int32)
        return joined_lists(self, (nothing, nothing.astype(np.float32)), columns)

    def of(self, rows: NDArray[np.integer]) -> "Kept":
        """Some of the lists."""
        return Kept(self.neighbours[rows], self.distances[rows], self.known[rows])


def kept_members(
    lists: tuple[Any, Any], rows: Int32s, away: NDArray[np.bool_], *, threads: int
) -> Kept:
    """What is left of the old lists of `rows` (int32 [m], ascending) without what is `away`.

    lists: old neighbours and distances [n, k], sliceable.
    """
    blocks, k = list(scanned(len(lists[0]))), lists[0][0:1].shape[1]
    near, known = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.int32)
    far = np.empty((len(rows), k), np.float32)

    def one(number: int) -> None:
        stretch = blocks[number]
        low, high = np.searchsorted(rows, (stretch.start, stretch.stop))
        if low < high:
            part = slice(low, high)
            inside = rows[part] - np.int32(stretch.start)
            _keep(lists[0][stretch], lists[1][stretch], inside, away, near[part], far[part])
            known[part] = np.sort(near[part].view(np.uint32), axis=1).view(np.int32)

    run_parallel(one, range(len(blocks)), threads)
    return Kept(near, far, known)


def without_members(rows: int) -> Kept:
    """Nothing is left."""
    nobody = np.empty((rows, 0), np.int32)
    return Kept(nobody, np.empty((rows, 0), np.float32), nobody)


def reaches(kept: Kept, finds: NDArray[np.integer], space: SpaceName) -> Float32s:
    """How far a search of each list need look, float32 [m], for so many finds beyond its members.

    Within r there are as many as r^D of them, with D by the list itself: by how much farther than
    that of its middle the distance of its last member is. Infinity where that can't be told.
    """
    count = kept.neighbours.shape[1] - kept.places
    if space == "ip":
        return np.full(len(count), np.inf, np.float32)
    ends = np.maximum(count - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        last, middle = (
            np.take_along_axis(kept.distances, at[:, None], 1)[:, 0].astype(np.float64)
            for at in (ends, ends // 2)
        )
        further = np.log2((count + finds) / np.maximum(count, 1))
        found = last * (last / middle) ** further
    found[(count < LEAST_MEMBERS) | ~np.isfinite(found)] = np.inf
    return found.astype(np.float32)


def joined_lists(
    kept: Kept, found: tuple[Int32s, Float32s], columns: int
) -> tuple[Int32s, Float32s]:
    """Members and finds [m, any], nobody among both, as lists [m, columns] by (distance, row)."""
    near = np.full((len(found[0]), columns), EMPTY, np.int32)
    far = np.full(near.shape, np.inf, np.float32)
    _join(kept.neighbours, kept.distances, *found, near, far)
    return near, far


@kernel
def _name(lists: Int32s, away: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """Empty places have no member that could be away."""
    for i in range(len(lists)):
        for j in range(lists.shape[1]):
            out[i] |= lists[i, j] >= 0 and away[lists[i, j]]


@kernel
def _keep(
    old: Int32s, old_far: Float32s, rows: Int32s, away: NDArray[np.bool_],
    near: Int32s, far: Float32s,
) -> None:  # fmt: skip
    for i in range(len(rows)):
        near[i], far[i] = EMPTY, np.inf
        place = 0
        for j in range(old.shape[1]):
            member = old[rows[i], j]
            if member >= 0 and not away[member]:
                near[i, place], far[i, place] = member, old_far[rows[i], j]
                place += 1


@kernel
def _join(
    old: Int32s, old_far: Float32s, found: Int32s, found_far: Float32s,
    near: Int32s, far: Float32s,
) -> None:  # fmt: skip
    for i in range(len(near)):
        a, b = 0, 0
        for place in range(near.shape[1]):
            left = a < old.shape[1] and old[i, a] >= 0
            right = b < found.shape[1] and found[i, b] >= 0
            if left and (
                not right or _before(old_far[i, a], old[i, a], found_far[i, b], found[i, b])
            ):
                near[i, place], far[i, place] = old[i, a], old_far[i, a]
                a += 1
            elif right:
                near[i, place], far[i, place] = found[i, b], found_far[i, b]
                b += 1


@kernel
def _before(left_far: float, left: int, right_far: float, right: int) -> bool:
    return left_far < right_far or (left_far == right_far and left < right)
