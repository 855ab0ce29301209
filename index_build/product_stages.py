"""The tasks of the join by inner products on a cluster, as `stages.py` has those by distances.

    plan      sample, truth, cells, hubs, which cell belongs to which shard      once
    block     a range of rows, cut by shard: who lives there, who asks there     per range of rows
    begun     lists of a shard's own askers out of its cells and the hubs        per shard
    found     what a shard has for its guests                                    per shard
    part      the final lists of a range of rows                                 per range of rows

Blocks and parts are the same ranges of rows. A task holds its shard's residents, the hubs, and one
block of askers with their lists; a part, its lists and what one shard found for it. Owns the
files' arrays (docs/formats.md); refuses to schedule.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from index_build.segments import Arrays, Segments, open_segments
from index_build.selfjoin import (
    Askers,
    Begun,
    Calls,
    Lists,
    Pairs,
    Points,
    Products,
    ProductShard,
    Residents,
    absorb,
    asked_cells,
    begun_lists,
    calls_by_shard,
    chosen_probing,
    drawn,
    empty_lists,
    found_for_guests,
    frozen,
    grouped_products,
    points_of,
    products_of,
    residents_by_shard,
    residents_of,
    shard_of_products,
    sort_lists,
    starts_of,
)
from index_build.selfjoin.probing import Probing
from index_build.selfjoin.train import Trained
from index_build.vector_file import vectors_of
from index_build.work import Work, grouping_sample, kth_distances, write, write_judged
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s
from nearfield.traffic import note_read

SIDES = 3
"""Segments of a block per shard: residents, own askers, guests."""


def plan_task(work: Work, number: int, *, threads: int) -> None:
    """Task: the plan, in a file with `sample` int32 [q], `kth` float32 [q], `hubs` int32 [h] and
    their `vectors` [h, d], and, where points ask cells, `centres` float32 [c, d], their `radii`
    and `shares` [c], and `shard_of` int32 [c].
    """
    vectors, every = work.mapped(), np.arange(work.n, dtype=np.int32)
    note_read(vectors.nbytes)  # the sample is compared with all
    several = np.flatnonzero(work.shared(0, work.n)).astype(np.int32)
    products, points = products_of(vectors, every, several), points_of(vectors, every, work.seed)
    queries = drawn(work.n, work.k, seed=work.seed)
    truth = empty_lists(len(queries), work.k)
    products.sweep(queries, truth, threads)
    probing = chosen_probing(
        products, (queries, truth.points), work.recall, seed=work.seed, threads=threads
    )
    facts: dict[str, float] = {
        "scale": float(points.scale),
        "product scale": float(products.targets.scale),
        "longest": float(products.longest),
        "cells": 0,
        "hubs": 0,
        "expected": 1.0,
    }
    arrays: dict[str, Any] = {
        "sample": queries,
        "kth": kth_distances(points, queries, truth.points, work.space),
    }
    if probing is not None:
        arrays |= {"hubs": probing.hubs, "vectors": vectors[probing.hubs]}
        facts |= {
            "hubs": len(probing.hubs),
            "probes": probing.probes,
            "expected": probing.expected,
            "cost": probing.cost,
        }
        if probing.probes:
            cells = probing.cells
            arrays |= {"centres": cells.centres, "radii": cells.radii, "shares": cells.shares}
            arrays["shard_of"] = grouped_products(
                probing, grouping_sample(points, work.seed), work.sizes.shards, threads=threads
            )
            facts["cells"] = len(cells.centres)
    write(work, "plan", number, [(0, arrays)], facts)


def block_task(work: Work, number: int, *, threads: int) -> None:
    """Task: a range of rows by shard: 3 s are its residents, 3 s + 1 own askers, 3 s + 2 guests."""
    plan, first = work.plan(), number * work.sizes.block_rows
    vectors = vectors_of(work.vectors, first, first + work.sizes.block_rows)
    several = work.shared(first, first + len(vectors))
    points = Points(
        frozen(vectors), np.arange(len(vectors), dtype=np.int32), np.float32(plan.facts["scale"])
    )
    probing, shard_of = _probing(plan), plan.read(0, "shard_of")
    hubs = probing.hubs - np.int32(first)
    hubs = hubs[(hubs >= 0) & (hubs < len(vectors))]
    home = residents_of(points, probing.cells, hubs, threads)
    asked = asked_cells(points, probing.cells, probing.probes, threads)
    shards = work.sizes.shards

    def segments() -> Iterator[tuple[int, Arrays]]:
        living = residents_by_shard(first, home, shard_of, shards)
        asking = calls_by_shard(first, asked, shard_of, shards)
        for shard, (lives, sides) in enumerate(zip(living, asking, strict=True)):
            yield (
                SIDES * shard,
                {
                    "points": lives.points,
                    "home": lives.home,
                    "vectors": vectors[lives.points - first],
                },
            )
            for side, calls in enumerate(sides, 1):
                yield (
                    SIDES * shard + side,
                    {
                        "points": calls.points,
                        "counts": calls.asked.sizes.astype(np.int32),
                        "asked": calls.asked.values,
                        "roams": calls.roams,
                        "several": several[calls.points - first],
                        "vectors": vectors[calls.points - first],
                    },
                )

    write(work, "block", number, segments())


def begun_task(work: Work, number: int, *, threads: int) -> None:
    """Task: first round of a shard, a segment per range of rows; of those that roam also the
    values, `squared`, and all `limits`, which other shards need.
    """
    blocks = _blocks(work)
    shard = _shard(work, blocks, number, hubs=True)

    def segments() -> Iterator[tuple[int, Arrays]]:
        for at, block in enumerate(blocks):
            askers = _asking(block, SIDES * number + 1)
            begun = begun_lists(shard, askers, work.k, threads=threads)
            yield at, _begun_arrays(askers.calls, begun)

    write(work, "begun", number, segments())


def _begun_arrays(calls: Calls, begun: Begun) -> Arrays:
    roaming = np.flatnonzero(calls.roams).astype(np.int32)
    return {
        "points": calls.points,
        "neighbours": begun.neighbours,
        "distances": begun.distances,
        "roaming": roaming,
        "limits": begun.limits[roaming],
        "squared": begun.squared[roaming],
    }


def found_task(work: Work, number: int, *, threads: int) -> None:
    """Task: second round of a shard, a segment per range of rows: pairs for its guests."""
    blocks = _blocks(work)
    shard = _shard(work, blocks, number, hubs=False)
    begun = [open_segments(work.path("begun", other)) for other in range(work.sizes.shards)]

    def segments() -> Iterator[tuple[int, Arrays]]:
        for at, block in enumerate(blocks):
            guests, first = _asking(block, SIDES * number + 2), at * work.sizes.block_rows
            limits = _limits(begun, at, first, work)[guests.calls.points - np.int32(first)]
            yield at, vars(found_for_guests(shard, guests, limits, work.k, threads=threads))

    write(work, "found", number, segments())


def _limits(begun: list[Segments], at: int, first: int, work: Work) -> Float32s:
    limits = np.full(work.sizes.block_rows, np.inf, np.float32)
    for theirs in begun:
        own = theirs.read(at, "points")[theirs.read(at, "roaming")]
        limits[own - np.int32(first)] = theirs.read(at, "limits")
    return limits


def part_task(work: Work, number: int, *, threads: int) -> None:
    """Task: final lists of a range of rows out of all shards' lists."""
    first = number * work.sizes.part_rows
    rows = work.part_of_rows(number)
    neighbours = np.full((len(rows), work.k), EMPTY, np.int32)
    squared = np.full(neighbours.shape, np.inf, np.float32)
    distances = squared.copy()
    for shard in range(work.sizes.shards):
        begun = open_segments(work.path("begun", shard))
        own = begun.read(number, "points") - np.int32(first)
        neighbours[own] = begun.read(number, "neighbours")
        distances[own] = begun.read(number, "distances")
        squared[own[begun.read(number, "roaming")]] = begun.read(number, "squared")
    if work.sizes.shards > 1:
        for shard in range(work.sizes.shards):
            found = open_segments(work.path("found", shard))
            pairs = Pairs(*(found.read(number, name) for name in Pairs.__dataclass_fields__))
            pairs = replace(pairs, points=pairs.points - np.int32(first))
            absorb(neighbours, squared, distances, pairs)
    _sweep_short(work, rows, neighbours, distances, threads)
    write_judged(work, number, neighbours, distances)


def sweep_task(work: Work, number: int, *, threads: int) -> None:
    """Task: final lists of a range of rows where no cells are asked: out of the hubs, or of all."""
    plan, rows = work.plan(), work.part_of_rows(number)
    neighbours = np.full((len(rows), work.k), EMPTY, np.int32)
    distances = np.full(neighbours.shape, np.inf, np.float32)
    if plan.facts["hubs"]:
        names = plan.read(0, "hubs")
        none = np.empty(0, np.int32)
        shard = shard_of_products(
            Residents(none, none), names, plan.read(0, "vectors"), none,
            scale=plan.facts["product scale"], longest=plan.facts["longest"],
        )  # fmt: skip
        first, stop = int(rows[0]), int(rows[-1]) + 1
        no_cells = Lists(starts_of(np.zeros(len(rows), np.int32)), none)
        calls = Calls(rows, no_cells, np.zeros(len(rows), bool))
        askers = Askers(calls, vectors_of(work.vectors, first, stop), work.shared(first, stop))
        begun = begun_lists(shard, askers, work.k, threads=threads)
        neighbours, distances = begun.neighbours, begun.distances
    _sweep_short(work, rows, neighbours, distances, threads)
    write_judged(work, number, neighbours, distances)


def _sweep_short(
    work: Work, rows: Int32s, neighbours: Int32s, distances: Float32s, threads: int
) -> None:
    """Compare rows whose list has empty places with all, and bring every list into its order."""
    short = np.flatnonzero(neighbours[:, -1] == EMPTY).astype(np.int32)
    if len(short):
        facts, every = work.plan().facts, np.arange(work.n, dtype=np.int32)
        points = Points(frozen(work.mapped()), every, np.float32(facts["product scale"]))
        own = np.where(work.shared(0, work.n), EMPTY, every).astype(np.int32)
        products = Products(points, points, own, np.float32(facts["longest"]))
        note_read(points.vectors.nbytes)
        lists = empty_lists(len(short), work.k)
        products.sweep(rows[short], lists, threads)
        neighbours[short] = lists.points
        distances[short] = products.lengths(rows[short], lists.points)
    sort_lists(neighbours, distances)


def _probing(plan: Segments) -> Probing:
    cells = Trained(*(plan.read(0, name) for name in ("centres", "radii", "shares")))
    facts = plan.facts
    return Probing(
        cells, int(facts["probes"]), plan.read(0, "hubs"), facts["expected"], facts["cost"]
    )


def _blocks(work: Work) -> list[Segments]:
    return [open_segments(work.path("block", number)) for number in range(len(work.blocks()))]


def _asking(block: Segments, segment: int) -> Askers:
    calls = Calls(
        block.read(segment, "points"),
        Lists(starts_of(block.read(segment, "counts")), block.read(segment, "asked")),
        block.read(segment, "roams"),
    )
    return Askers(calls, block.read(segment, "vectors"), block.read(segment, "several"))


def _shard(work: Work, blocks: list[Segments], number: int, *, hubs: bool) -> ProductShard:
    plan, segment = work.plan(), SIDES * number
    points = [block.read(segment, "points") for block in blocks]
    home = [block.read(segment, "home") for block in blocks]
    asked_by_all = plan.read(0, "hubs") if hubs else np.empty(0, np.int32)
    held = sum(map(len, points))
    vectors = np.empty((held + len(asked_by_all), plan.read(0, "centres").shape[1]), np.float32)
    first = 0
    for block in blocks:
        piece = block.read(segment, "vectors")
        vectors[first : first + len(piece)] = piece
        first += len(piece)
    if hubs:
        vectors[first:] = plan.read(0, "vectors")
    return shard_of_products(
        Residents(np.concatenate(points), np.concatenate(home)), asked_by_all, vectors,
        np.flatnonzero(plan.read(0, "shard_of") == number).astype(np.int32),
        scale=plan.facts["product scale"], longest=plan.facts["longest"],
    )  # fmt: skip
