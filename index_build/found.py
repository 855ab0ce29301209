"""What a shard of the self-join found, by distances: written where it is wanted, and settled.

    lists     the final lists of residents that are guests nowhere                per shard
    sent      what it found for its guests, by the shards where they live         per shard
    roaming   lists of the other residents, on a disk of the host's own           per shard
    merged    these with what other shards found for them, final                  per shard

The last needs the first three, of which it can make the third again: the host that had it may be
gone. Lists lie by ranges of rows, as the matrix is written. Squares are written and distances left
out, which follow from them, but for a few. Owns the files' arrays (docs/formats.md); refuses to
schedule.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.final import FinalRows
from index_build.own_disk import keep, kept
from index_build.segments import Arrays, Segments, open_segments
from index_build.selfjoin import (
    Pairs,
    Shard,
    ShardLists,
    follows,
    join_shard,
    lengths_from,
    settle,
)
from index_build.stages import shard_of_work, swept_lists
from index_build.work import Work, judged, write
from nearfield.errors import DamagedArtefact
from nearfield.locations import Location
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s
from nearfield.turns import turn

OWN = "roaming"
"""The kind that stays on its host."""
FINAL = "lists", "merged"
"""The kinds that hold final lists."""


def lists_task(work: Work, number: int, *, threads: int) -> None:
    """Task: second round of a shard. The file of its lists is the last."""
    shard, found = _joined(work, number, threads)
    keep(work, OWN, number, [(0, _roaming_arrays(found))])
    write(work, "sent", number, _sent_by_shard(shard, found, work.sizes.shards))
    stays = np.ones(len(found.points), bool)
    stays[found.roaming] = False
    _write_final(
        work, "lists", number,
        (found.points[stays], found.neighbours[stays], found.distances[stays]), threads,
    )  # fmt: skip


def merged_task(work: Work, number: int, *, threads: int) -> None:
    """Task: the final lists of a shard's roaming residents."""
    points, neighbours, squared, distances = _roaming(work, number, threads)
    sent = [_read_sent(work, open_segments(work.path("sent", other)), number)
            for other in range(work.sizes.shards)]  # fmt: skip
    named, *others = (np.concatenate(arrays) for arrays in zip(*sent, strict=True))
    with turn():
        places = np.searchsorted(points, named).astype(np.int32)
        every = np.arange(len(points), dtype=np.int32)
        settle(neighbours, squared, distances, every, Pairs(places, *others))
    _write_final(work, "merged", number, (points, neighbours, distances), threads)


def final_files(work: Work) -> list[Location]:
    """All files of final lists."""
    return [work.path(kind, shard) for kind in FINAL for shard in range(work.sizes.shards)]


def final_rows(work: Work) -> list[FinalRows]:
    """The final lists, by ascending rows."""
    files = final_files(work)
    return [
        FinalRows(
            first, min(work.n, first + work.sizes.part_rows), tuple((it, number) for it in files)
        )
        for number, first in enumerate(work.part_starts())
    ]


def _joined(work: Work, number: int, threads: int) -> tuple[Shard, ShardLists]:
    shard = shard_of_work(work, number, guests=True)
    limits = np.empty(work.n, np.float32)
    if work.sizes.shards > 1:
        for other in range(work.sizes.shards):
            theirs = open_segments(work.path("limits", other))
            limits[theirs.read(0, "points")] = theirs.read(0, "limits")
    with turn():
        guests = limits[shard.guests.points]
        return shard, join_shard(shard, guests, work.k, space=work.space, threads=threads)


def _write_final(
    work: Work, kind: str, number: int, lists: tuple[Int32s, Int32s, Float32s], threads: int
) -> None:
    """Write final lists of points in ascending order, those that aren't full compared with all."""
    points, neighbours, distances = lists
    short = np.flatnonzero(neighbours[:, -1] == EMPTY).astype(np.int32)
    if len(short):
        neighbours[short], distances[short] = swept_lists(work, points[short], threads)
    edges = np.searchsorted(points, [*work.part_starts(), work.n])
    segments = (
        (at, {
            "points": points[first:last],
            "neighbours": neighbours[first:last],
            "distances": distances[first:last],
        })
        for at, (first, last) in enumerate(pairwise(edges))
    )  # fmt: skip
    write(work, kind, number, segments, judged(work, points, distances))


def _roaming_arrays(found: ShardLists) -> Arrays:
    chosen = found.roaming
    return {
        "points": found.points[chosen],
        "neighbours": found.neighbours[chosen],
        **_lengths(found.squared, found.distances[chosen]),
    }


def _roaming(work: Work, number: int, threads: int) -> tuple[Int32s, Int32s, Float32s, Float32s]:
    """Points [r], neighbours, squares and distances [r, k]; found again if need be."""
    try:
        with kept(work, OWN, number) as own:
            if own is not None:
                points, neighbours = own.read(0, "points"), own.read(0, "neighbours")
                return points, neighbours, *_read_lengths(work, own, 0)
    except DamagedArtefact:
        pass
    found = _joined(work, number, threads)[1]
    chosen = found.roaming
    return found.points[chosen], found.neighbours[chosen], found.squared, found.distances[chosen]


def _sent_by_shard(shard: Shard, found: ShardLists, shards: int) -> Iterator[tuple[int, Arrays]]:
    """A point that something is sent to is written once, with the number of what follows."""
    sent = found.sent
    starts = np.flatnonzero(np.diff(sent.points, prepend=-1))
    points, stops = sent.points[starts], np.append(starts[1:], len(sent.points))
    lives_in = shard.guests_of[np.searchsorted(shard.guests.points, points)]
    edges = np.searchsorted(lives_in, np.arange(shards + 1))
    for to, (first, last) in enumerate(pairwise(edges)):
        one = slice(first, last)
        pairs = slice(starts[first], stops[last - 1]) if last > first else slice(0, 0)
        yield (
            to,
            {
                "points": points[one],
                "counts": (stops[one] - starts[one]).astype(np.int32),
                "neighbours": sent.neighbours[pairs],
                **_lengths(sent.squared[pairs], sent.distances[pairs]),
            },
        )


def _read_sent(work: Work, sent: Segments, to: int) -> Sequence[NDArray[Any]]:
    """The arrays of `Pairs`, in its order."""
    points = np.repeat(sent.read(to, "points"), sent.read(to, "counts"))
    return [points, sent.read(to, "neighbours"), *_read_lengths(work, sent, to)]


def _lengths(squared: Float32s, distances: Float32s) -> Arrays:
    return {"squared": squared, "distances": distances[~follows(squared)]}


def _read_lengths(work: Work, file: Segments, segment: int) -> tuple[Float32s, Float32s]:
    """Squares and distances."""
    squared, others = file.read(segment, "squared"), file.read(segment, "distances")
    scale = float(work.plan().facts["scale"])
    return squared, lengths_from(squared, others, scale, space=work.space)
