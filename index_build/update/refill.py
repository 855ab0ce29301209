"""Lists that lost a member: which they are, what stays in them, and what may take the place.

Nothing may be missed here, so every list is looked at. One that with its reserve and its entries
still has k members needs no search. What a list still has needn't be found again: the search of it
is for what comes in place of the lost, which is little farther than the last of its members was, so
that far it looks at first. Its finds join the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel, run_parallel
from index_build.update.known import Known, nothing_known, scanned, within
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

LEAST_MEMBERS = 8
"""So many say how dense it is around a list."""


def members_left(
    known: Known, away: NDArray[np.bool_], *, threads: int
) -> tuple[Int32s, NDArray[np.bool_]]:
    """How many members each list with its reserve keeps, int32 [n], and whether it lost any, bool.

    away: bool, by row. Cost: one look at every list.
    """
    blocks = list(scanned(len(known)))
    left, lost = np.zeros(len(known), np.int32), np.zeros(len(known), bool)

    def look(number: int) -> None:
        _count(known.members(blocks[number]), away, left[blocks[number]], lost[blocks[number]])

    run_parallel(look, range(len(blocks)), threads)
    return left, lost


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
        return joined_lists(self, nothing_known(len(self.neighbours), 0), columns)

    def of(self, rows: NDArray[np.integer]) -> "Kept":
        """Some of the lists."""
        return Kept(self.neighbours[rows], self.distances[rows], self.known[rows])


def kept_members(
    known: Known, rows: Int32s, away: NDArray[np.bool_], columns: int, *, threads: int
) -> Kept:
    """What is left of the old lists of `rows` (int32 [m], ascending) without what is `away`.

    None of them keeps more than `columns` members.
    """
    blocks = list(scanned(len(known)))
    near, far = nothing_known(len(rows), columns)
    by_row = np.empty(near.shape, np.int32)

    def one(number: int) -> None:
        stretch = blocks[number]
        low, high = within(rows, stretch.start, stretch.stop)
        if low < high:
            part = slice(low, high)
            inside = rows[part] - np.int32(stretch.start)
            keep(*known.lists(stretch), inside, away, near[part], far[part])
            by_row[part] = np.sort(near[part].view(np.uint32), axis=1).view(np.int32)

    run_parallel(one, range(len(blocks)), threads)
    return Kept(near, far, by_row)


def without_members(rows: int) -> Kept:
    """Nothing is left."""
    near, far = nothing_known(rows, 0)
    return Kept(near, far, near)


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
    near, far = nothing_known(len(found[0]), columns)
    _join(kept.neighbours, kept.distances, *found, near, far)
    return near, far


@kernel
def _count(lists: Int32s, away: NDArray[np.bool_], left: Int32s, lost: NDArray[np.bool_]) -> None:
    for i in range(len(lists)):
        members, gone = 0, 0
        for j in range(lists.shape[1]):
            member = lists[i, j]
            if member >= 0:
                members += 1
                gone += away[member]
        left[i], lost[i] = members - gone, gone > 0


@kernel
def keep(
    old: Int32s, old_far: Float32s, rows: Int32s, away: NDArray[np.bool_],
    near: Int32s, far: Float32s,
) -> None:  # fmt: skip
    """Members of old[rows], with their distances, that aren't away, into near and far [m, any]."""
    for i in range(len(rows)):
        near[i], far[i] = EMPTY, np.inf
        place = 0
        for j in range(old.shape[1]):
            member = old[rows[i], j]
            if member >= 0 and not away[member] and place < near.shape[1]:
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
