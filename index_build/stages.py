"""The self-join's tasks on a cluster: each reads files of the stage before, and writes one.

    training  vectors that train cells, for a machine that hasn't all         once
    cells     centres                                                         once
    truth     a sample, and its true neighbours                               once
    plan      whom a point visits, which cell belongs to which shard          once
    block     homes and visits of a range of rows, its vectors cut by shard   per range of rows
    limits    how far each resident's list can reach                          per shard
    part      the final lists of a range of rows, where no cells save work    per range of rows

What a shard finds is written and settled by index_build/found.py. A task is a pure function of
`Work` and a number, so a lost one is run again and a repeated one changes nothing. A block holds
its vectors, a shard those of its residents and guests with their lists. Owns the files' arrays
(docs/formats.md); refuses to schedule.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_build.segments import Arrays, Segments, open_segments
from index_build.selfjoin import (
    Lists,
    Members,
    Pairs,
    Points,
    Sample,
    Shard,
    Trained,
    all_members,
    cell_counts,
    choose_plan,
    cut_by_shard,
    drawn_sample,
    frozen,
    grouped_cells,
    nearest_points,
    pair_lengths,
    panel_of,
    partition,
    points_of,
    resident_limits,
    settle,
    starts_of,
    trained,
    trained_from,
    training_points,
)
from index_build.vector_file import at_hand, rows_at_hand, vectors_of
from index_build.work import Work, grouping_sample, kth_distances, write, write_judged
from nearfield.space import Float32s, Int32s
from nearfield.traffic import note_read
from nearfield.turns import turn


def training_task(work: Work, number: int, *, threads: int) -> None:
    """Task: `vectors` float32 [s, d] that train the first cells, for a machine that hasn't all of
    them at hand, and the `scale` of all.
    """
    del threads
    points = _all_points(work)
    chosen = training_points(work.n, first_cells(work), seed=work.seed)
    vectors = points.vectors[chosen]
    note_read(vectors.nbytes)
    write(work, "training", number, [(0, {"vectors": vectors})], {"scale": float(points.scale)})


def cells_task(work: Work, number: int, *, threads: int) -> None:
    """Task: the cells that the plan tries first: `centres` float32 [c, d], `radii`, `shares` [c].

    Out of the file of what trains them where this machine hasn't all vectors, and there is one.
    """
    count = first_cells(work)
    if at_hand(work.vectors) or not work.path("training").exists():
        cells = _trained(work, _all_points(work), count, threads)
    else:
        file = open_segments(work.path("training"))
        vectors = file.read(0, "vectors")
        every = np.arange(len(vectors), dtype=np.int32)
        sample = Points(frozen(vectors), every, np.float32(file.facts["scale"]))
        cells = trained_from(sample, work.n, count, seed=work.seed, threads=threads)
    write(work, "cells", number, [(0, vars(cells))])


def truth_task(work: Work, number: int, *, threads: int) -> None:
    """Task: `sample` int32 [q], the `truth` [q, k] of each, and how far it goes, `kth` float32."""
    points = _all_points(work)
    note_read(points.vectors.nbytes)  # the sample is compared with all
    sample = drawn_sample(points, work.k, seed=work.seed, threads=threads)
    kth = kth_distances(points, sample.points, sample.truth, work.space)
    arrays = {"sample": sample.points, "truth": sample.truth, "kth": kth}
    write(work, "truth", number, [(0, arrays)])


def plan_task(work: Work, number: int, *, threads: int) -> None:
    """Task: the plan, in a file with `sample` int32 [q], `kth` float32 [q], and, where cells save
    work, `centres` float32 [c, d], their `radii` [c] and `shard_of` int32 [c].
    """
    points, truth = _all_points(work), open_segments(work.path("truth"))

    def train(count: int) -> Trained:
        if count != first_cells(work):
            return _trained(work, points, count, threads)
        cells = open_segments(work.path("cells"))
        return Trained(*(cells.read(0, name) for name in ("centres", "radii", "shares")))

    sample = Sample(truth.read(0, "sample"), truth.read(0, "truth"))
    plan = choose_plan(points, sample, work.recall, train, threads=threads)
    arrays = {name: truth.read(0, name) for name in ("sample", "kth")}
    facts: dict[str, float] = {
        "scale": float(points.scale),
        "cells": 0,
        "expected": 1.0,
    }
    if plan is not None:
        cells = partition(
            grouping_sample(points, work.seed), plan.panel,
            ratio=plan.ratio, most=plan.most, threads=threads,
        )  # fmt: skip
        arrays |= {
            "centres": plan.panel.centres,
            "radii": plan.panel.radii,
            "shard_of": grouped_cells(cells, work.sizes.shards),
        }
        facts |= {
            "cells": len(cells.centres),
            "ratio": plan.ratio,
            "most": plan.most,
            "visits": plan.visits,
            "expected": plan.expected,
        }
    write(work, "plan", number, [(0, arrays)], facts)


def first_cells(work: Work) -> int:
    """How many cells the plan tries first; 0: none, cells can't save work."""
    return next(cell_counts(work.n, work.k), 0)


def fetch_task(work: Work, *, threads: int) -> None:
    """Task: this machine's copy of all vectors, where they are another's; nothing else."""
    del threads
    work.mapped()


def block_task(work: Work, number: int, *, threads: int) -> None:
    """Task: a block of rows, cut by shard: 2 s are shard s' residents, 2 s + 1 its guests."""
    plan, first = work.plan(), number * work.sizes.block_rows
    stop = min(work.n, first + work.sizes.block_rows)
    rows = np.arange(stop - first, dtype=np.int32)
    if work.sizes.held:
        vectors = rows_at_hand(work.vectors, rows + np.int32(first))
    else:
        vectors = vectors_of(work.vectors, first, stop)
    points = _points(plan, vectors, rows)
    cells = partition(
        points, panel_of(plan.read(0, "centres"), points, plan.read(0, "radii")),
        ratio=plan.facts["ratio"], most=plan.facts["most"], threads=threads,
    )  # fmt: skip
    shard_of, shards = plan.read(0, "shard_of"), work.sizes.shards

    def segments() -> Iterator[tuple[int, Arrays]]:
        for shard, pair in enumerate(cut_by_shard(first, cells, shard_of, shards)):
            for side, members in enumerate(pair):
                arrays: dict[str, NDArray[Any]] = {
                    "points": members.points,
                    "home": members.home,
                    "visits": members.visited.sizes.astype(np.int32),
                    "visited": members.visited.values,
                }
                if not work.sizes.held:
                    arrays["vectors"] = vectors[members.points - first]
                yield 2 * shard + side, arrays

    write(work, "block", number, segments())


def shard_sizes(work: Work) -> NDArray[np.int64]:
    """Points in each shard, residents and guests, as the finished blocks say."""
    sizes = np.zeros(work.sizes.shards, np.int64)
    for number in range(len(work.blocks())):
        entries = open_segments(work.path("block", number)).entries
        for shard in range(work.sizes.shards):
            for side in (2 * shard, 2 * shard + 1):
                sizes[shard] += entries[side, "points"][1][0]
    return sizes


def limits_task(work: Work, number: int, *, threads: int) -> None:
    """Task: first round of a shard: `points` int32 [m] and `limits` float32 [m]."""
    shard = shard_of_work(work, number, guests=False)
    with turn():
        limits = resident_limits(shard, work.k, threads=threads)
    arrays = {"points": shard.residents.points, "limits": limits}
    write(work, "limits", number, [(0, arrays)])


def sweep_task(work: Work, number: int, *, threads: int) -> None:
    """Task: final lists of a range of rows by comparing them with all, where no cells save work."""
    rows = work.part_of_rows(number)
    write_judged(work, number, *swept_lists(work, rows, threads))


def swept_lists(work: Work, rows: Int32s, threads: int) -> tuple[Int32s, Float32s]:
    """Final neighbours and distances [m, k] of some rows, by comparing them with all."""
    points = _points(work.plan(), work.mapped(), np.arange(work.n, dtype=np.int32))
    note_read(points.vectors.nbytes)
    found = nearest_points(points, rows, work.k, threads=threads)
    lengths = pair_lengths(
        points, np.repeat(rows, work.k), found.points.ravel(), space=work.space, threads=threads
    ).reshape(-1, work.k)
    none = np.empty(0, np.int32)
    nothing = Pairs(none, none, none.view(np.float32), none.view(np.float32))
    settle(found.points, found.squared, lengths, np.arange(len(rows), dtype=np.int32), nothing)
    return found.points, lengths


def _all_points(work: Work) -> Points:
    return points_of(work.mapped(), np.arange(work.n, dtype=np.int32), work.seed)


def _trained(work: Work, points: Points, count: int, threads: int) -> Trained:
    return trained(points, count, seed=work.seed, threads=threads)


def _points(plan: Segments, vectors: Float32s, rows: Int32s) -> Points:
    return Points(frozen(vectors), rows, np.float32(plan.facts["scale"]))


def shard_of_work(work: Work, number: int, *, guests: bool) -> Shard:
    """A shard out of the blocks, with its vectors; its guests, too, where they are wanted."""
    plan = work.plan()
    blocks = [open_segments(work.path("block", b)) for b in range(len(work.blocks()))]
    sides = [2 * number, 2 * number + 1][: 1 + guests]
    residents = _members(blocks, sides[0])
    others = _members(blocks if guests else [], 2 * number + 1)
    shard_of = plan.read(0, "shard_of")
    numbers = np.flatnonzero(shard_of == number).astype(np.int32)
    centres = plan.read(0, "centres")[numbers]
    if work.sizes.held:
        vectors = rows_at_hand(work.vectors, np.concatenate([residents.points, others.points]))
    else:
        vectors = np.empty((len(residents) + len(others), centres.shape[1]), np.float32)
        first = 0
        for side in sides:
            for block in blocks:
                piece = block.read(side, "vectors")
                vectors[first : first + len(piece)] = piece
                first += len(piece)
    return Shard(
        numbers, centres, vectors, residents, others, shard_of[others.home],
        scale=plan.facts["scale"],
    )  # fmt: skip


def _members(blocks: list[Segments], segment: int) -> Members:
    return all_members(
        [
            Members(
                block.read(segment, "points"),
                block.read(segment, "home"),
                Lists(starts_of(block.read(segment, "visits")), block.read(segment, "visited")),
            )
            for block in blocks
        ]
    )
