"""The join cut into shards, the units of work on a cluster: groups of cells with their points.

A shard's points are its residents (their home is one of its cells) and guests (they live elsewhere
and visit some of its cells). Its task needs their vectors and nothing else. Two rounds: residents
of every shard among themselves, which bounds how far each list can reach; then visitors, where a
guest brings that bound along, so that only what may still enter its list is found and sent home.
Together this gives, to the bit, the lists of a join in one process: a pair meets in one cell only,
and the k smallest (squared distance, point) of a union don't depend on how it was cut.
Refuses storage and scheduling.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.cells import Cells, Lists, lists_by, starts_of
from index_build.selfjoin.finish import Pairs, finish, known_lengths
from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.join import NearLists, empty_lists, join_residents, join_visitors
from index_build.selfjoin.points import Points, frozen
from nearfield.space import Float32s, Int32s, SpaceName

PLACEHOLDER = 0x7FFFFFFE
"""The last of k numbers, above any point's, that stand in a guest's list for its own at home."""


@dataclass(frozen=True)
class Members:
    """points: int32 [m], ascending. home: int32 [m]. visited: the cells that each visits.

    Of guests only the visits to the shard's own cells are listed.
    """

    points: Int32s
    home: Int32s
    visited: Lists

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Shard:
    """numbers: int32 [c], ascending, its cells. centres: float32 [c, d].

    vectors: float32 [t, d], of the residents and then of the guests. guests_of: int32 [g], the
    shard where each guest lives. `scale`: that of the `Points` of the whole join.
    """

    numbers: Int32s
    centres: Float32s
    vectors: Float32s
    residents: Members
    guests: Members
    guests_of: Int32s
    scale: float


@dataclass(frozen=True)
class ShardLists:
    """What a shard's task found.

    points: int32 [m], its residents, ascending. neighbours, distances: [m, k], final but for those
    of `roaming`, int32 [r], places in `points` of residents that are guests elsewhere; theirs are
    in no order, with `squared` [r, k] to be settled with the `sent` of other shards. What it sends
    itself follows the shards where its guests live.
    """

    points: Int32s
    neighbours: Int32s
    distances: Float32s
    roaming: Int32s
    squared: Float32s
    sent: Pairs


def cut_by_shard(
    first: int, cells: Cells, shard_of: Int32s, shards: int
) -> Iterator[tuple[Members, Members]]:
    """For each shard the residents and guests among points first.., whose `cells` these are.

    shard_of: int32 [cells]. Cost O(points + visits) per call, once more per shard in points.
    """
    lives_in, goes_to = shard_of[cells.home], shard_of[cells.visited.values]
    visitor = np.repeat(np.arange(len(cells.home), dtype=np.int32), cells.visited.sizes)
    away = np.flatnonzero(goes_to != lives_in[visitor])
    visits_to = lists_by(goes_to[away], away.astype(np.int32), shards)
    living = lists_by(lives_in, np.arange(len(cells.home), dtype=np.int32), shards)
    for shard in range(shards):
        residents, visits = living[shard], visits_to[shard]
        guests, counts = np.unique(visitor[visits], return_counts=True)
        calls = Lists(starts_of(counts), cells.visited.values[visits])
        yield (
            Members(residents + np.int32(first), cells.home[residents],
                    cells.visited.chosen(residents)),
            Members(guests + np.int32(first), cells.home[guests], calls),
        )  # fmt: skip


def all_members(parts: Sequence[Members]) -> Members:
    """The members of consecutive ranges of points as one; of no ranges, nobody."""
    if not parts:
        none = np.empty(0, np.int32)
        return Members(none, none, Lists(np.zeros(1, np.int64), none))
    return Members(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.home for part in parts]),
        Lists(
            starts_of(np.concatenate([part.visited.sizes for part in parts])),
            np.concatenate([part.visited.values for part in parts]),
        ),
    )


def resident_limits(shard: Shard, k: int, *, threads: int) -> Float32s:
    """First round: an upper bound float32 [m] of the k-th squared distance of each resident.

    Infinity where its home has too few residents. shard.guests is not looked at.
    """
    nobody = all_members([])
    alone = replace(shard, guests=nobody, guests_of=nobody.home)
    points, cells, _ = _local(alone)
    lists = empty_lists(len(points), k)
    _each(cells, threads, lambda cell: join_residents(points, cells, lists, cell))
    return lists.limits


def join_shard(
    shard: Shard, limits: Float32s, k: int, *, space: SpaceName, threads: int
) -> ShardLists:
    """Second round. limits: float32 [g], of the guests, from the first round of their shards.

    Memory beyond the vectors: lists [t, k] of 8 bytes, and 4 more for residents.
    """
    points, cells, order = _local(shard)
    lists = empty_lists(len(points), k)
    # places in the order of points; residents and guests apart
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=np.int32)
    residents, guests = np.split(place, [len(shard.residents)])
    _each(cells, threads, lambda cell: join_residents(points, cells, lists, cell))
    hold_places(lists, guests, limits)
    _each(cells, threads, lambda cell: _join_guests(shard, points, cells, lists, cell))
    names = _names(shard)[order]
    sent = _sent(points, lists, guests, shard.guests_of, space=space, threads=threads)
    _rename(sent.points, names)
    _rename(sent.neighbours, names)
    return _own(shard, (points, cells, lists, residents), names, sent, space, threads)


def _local(shard: Shard) -> tuple[Points, Cells, Int32s]:
    """The shard's points in ascending order, their cells, and where each stands in `vectors`."""
    members = all_members((shard.residents, shard.guests))
    order = np.argsort(members.points, kind="stable").astype(np.int32)
    home, visited = members.home[order], members.visited.chosen(order)
    local = np.arange(len(order), dtype=np.int32)
    lives = np.flatnonzero(order < len(shard.residents)).astype(np.int32)
    visitor = np.repeat(local, visited.sizes)
    cell = np.minimum(np.searchsorted(shard.numbers, visited.values), len(shard.numbers) - 1)
    here = shard.numbers[cell] == visited.values
    cells = Cells(
        centres=shard.centres,
        home=home,
        visited=visited,
        residents=lists_by(
            np.searchsorted(shard.numbers, home[lives]).astype(np.int32), lives, len(shard.numbers)
        ),
        visitors=lists_by(cell[here].astype(np.int32), visitor[here], len(shard.numbers)),
    )
    points = Points(frozen(shard.vectors), order, np.float32(shard.scale))
    return points, cells, order


def _names(shard: Shard) -> Int32s:
    return np.concatenate([shard.residents.points, shard.guests.points])


def _each(cells: Cells, threads: int, task: Callable[[int], object]) -> None:
    run_parallel(task, range(len(cells.residents)), threads)


def _join_guests(shard: Shard, points: Points, cells: Cells, lists: NearLists, cell: int) -> None:
    # the join numbers cells from `first`: these aren't consecutive
    numbered = replace(cells, first=int(shard.numbers[cell]) - cell)
    join_visitors(points, numbered, lists, cell)


def hold_places(lists: NearLists, guests: Int32s, limits: Float32s) -> None:
    """Fill the list guests[i] with k placeholders at limits[i], where that is finite."""
    bounded = guests[np.isfinite(limits)]
    lists.limits[guests] = limits
    lists.squared[bounded] = lists.limits[bounded, None]
    lists.points[bounded] = PLACEHOLDER - np.arange(lists.k, dtype=np.int32)


def _sent(
    points: Points, lists: NearLists, guests: Int32s, lives_in: Int32s,
    *, space: SpaceName, threads: int,
) -> Pairs:  # fmt: skip
    """What entered the lists of guests, in local numbers; by the shards where they live."""
    guests = guests[np.argsort(lives_in, kind="stable")]
    entered = _entered(guests, lists.points, len(points))
    left, right = np.empty(entered, np.int32), np.empty(entered, np.int32)
    squared = np.empty(entered, np.float32)
    _take_entered(guests, lists.points, lists.squared, len(points), left, right, squared)
    lengths = known_lengths(points, (left, right), squared, space=space, threads=threads)
    return Pairs(left, right, squared, lengths)


def _own(
    shard: Shard, local: tuple[Points, Cells, NearLists, Int32s], names: Int32s, sent: Pairs,
    space: SpaceName, threads: int,
) -> ShardLists:  # fmt: skip
    points, cells, lists, residents = local
    visits = shard.residents.visited
    elsewhere = ~np.isin(visits.values, shard.numbers)
    roams = np.zeros(len(residents), bool)
    roams[np.repeat(np.arange(len(residents)), visits.sizes)[elsewhere]] = True
    roaming = np.flatnonzero(roams).astype(np.int32)
    away = np.zeros(len(points), bool)
    away[residents[roams]] = True
    squared, lengths = _unordered(points, lists, away, space=space, threads=threads)
    settled = [
        members[~away[members]]
        for members in (cells.residents[c] for c in range(len(cells.residents)))
    ]
    finish(points, lists.points, lists.squared, settled, space=space, threads=threads)
    lists.squared[away] = lengths
    neighbours = lists.points[residents]
    _rename(neighbours.reshape(-1), names)
    return ShardLists(
        shard.residents.points, neighbours, lists.squared[residents], roaming, squared, sent
    )


def _unordered(
    points: Points, lists: NearLists, away: NDArray[np.bool_], *, space: SpaceName, threads: int
) -> tuple[Float32s, Float32s]:
    """Squared distances and final ones of the lists `away`, [r, k], by ascending point."""
    chosen = np.flatnonzero(away).astype(np.int32)
    squared, pairs = lists.squared[chosen], np.repeat(chosen, lists.k)
    lengths = known_lengths(
        points, (pairs, lists.points[chosen].ravel()), squared.ravel(),
        space=space, threads=threads,
    )  # fmt: skip
    return squared, lengths.reshape(squared.shape)


@kernel
def _rename(numbers: Int32s, names: Int32s) -> None:
    for i in range(len(numbers)):
        if numbers[i] >= 0:
            numbers[i] = names[numbers[i]]


@kernel
def _entered(guests: Int32s, neighbours: Int32s, points: int) -> int:
    entered = 0
    for guest in guests:
        for j in range(neighbours.shape[1]):
            entered += 0 <= neighbours[guest, j] < points
    return entered


@kernel
def _take_entered(  # noqa: PLR0913, PLR0917
    guests: Int32s, neighbours: Int32s, apart: Float32s, points: int,
    left: Int32s, right: Int32s, squared: Float32s,
) -> None:  # fmt: skip
    i = 0
    for guest in guests:
        for j in range(neighbours.shape[1]):
            if 0 <= neighbours[guest, j] < points:
                left[i], right[i] = guest, neighbours[guest, j]
                squared[i] = apart[guest, j]
                i += 1
