"""What the tasks of the self-join share on a cluster: where files are, how each is marked.

Owns names and marks of the intermediate files, and what all ways of joining write alike. Refuses
to know what the arrays mean (index_build/stages.py, product_stages.py, track_stages.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.methods.base import tie_aware_recall
from index_build.final import FinalRows
from index_build.inputs import SEVERAL
from index_build.plan import Sizes
from index_build.segments import (
    Arrays,
    Segments,
    open_segments,
    segments_finished,
    write_segments,
)
from index_build.selfjoin import Points
from index_build.vector_file import mapped_vectors
from nearfield.locations import Location, location
from nearfield.manifest import fingerprint
from nearfield.space import Float32s, Int32s, SpaceName, pair_distances

GROUPING_SAMPLE = 32_768
"""Points whose visits decide which cells share a shard."""


@dataclass(frozen=True)
class Work:
    """All that the tasks of one attempt share. `vectors`: the file of the n distinct vectors.

    `several`: the file that tells which of them stand for several rows; empty where that is no
    matter, or none does. directory, parts, vectors, several: paths, or URLs of an object store.
    """

    directory: str
    parts: str
    vectors: str
    fingerprint: str
    n: int
    k: int
    space: SpaceName
    recall: float
    seed: int
    sizes: Sizes
    several: str = ""

    def path(self, kind: str, number: int = 0) -> Location:
        """The file of one task."""
        directory = location(self.directory)
        if kind == "part":
            return location(self.parts) / f"{directory.name}-{number:05d}"
        return directory / f"{kind}-{number:05d}"

    def mark(self, kind: str, number: int = 0) -> str:
        """The fingerprint of one task's file."""
        return fingerprint(work=self.fingerprint, kind=kind, number=number)

    def blocks(self) -> range:
        """First rows of the blocks."""
        return range(0, self.n, self.sizes.block_rows)

    def part_starts(self) -> range:
        """First rows of the parts."""
        return range(0, self.n, self.sizes.part_rows)

    def part_of_rows(self, number: int) -> Int32s:
        """The rows of one part."""
        first = number * self.sizes.part_rows
        return np.arange(first, min(self.n, first + self.sizes.part_rows), dtype=np.int32)

    def mapped(self) -> Float32s:
        """The vectors, mapped."""
        return mapped_vectors(self.vectors)

    def shared(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of the vectors first..stop-1 stand for several rows."""
        if not self.several:
            return np.zeros(stop - first, bool)
        return open_segments(location(self.several)).read(0, SEVERAL)[first:stop]

    def plan(self) -> Segments:
        """The finished plan."""
        return open_segments(self.path("plan"))


def grouping_sample(points: Points, seed: int) -> Points:
    """Those that tell which cells belong together."""
    random = np.random.default_rng((seed, 3))
    some = random.choice(len(points), min(len(points), GROUPING_SAMPLE), replace=False)
    return points.chosen(np.sort(some).astype(np.int32))


def kth_distances(points: Points, sample: Int32s, truth: Int32s, space: SpaceName) -> Float32s:
    """The distance of each sampled point's k-th neighbour, as `nearfield.space` defines it.

    truth: int32 [q, k], the sampled points' neighbours; -1, of whom there are too few, is at
    infinity.
    """
    rows, kth = points.rows, np.full(len(sample), np.inf, np.float32)
    for at in np.flatnonzero((truth >= 0).all(axis=1)):
        own, true = points.vectors[rows[sample[at]]], points.vectors[rows[truth[at]]]
        kth[at] = pair_distances(own, true, space).max()
    return kth


def write(
    work: Work,
    kind: str,
    number: int,
    segments: Iterable[tuple[int, Arrays]],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the file of one task, marked."""
    write_segments(
        work.path(kind, number), segments, fingerprint=work.mark(kind, number), facts=facts
    )


def write_lists(work: Work, number: int, neighbours: Int32s, distances: Float32s) -> None:
    """Write a part: final lists [m, k] of its rows."""
    _write_part(work, number, neighbours, distances, {})


def write_judged(work: Work, number: int, neighbours: Int32s, distances: Float32s) -> None:
    """As `write_lists`, and how good they are."""
    facts = judged(work, work.part_of_rows(number), distances)
    _write_part(work, number, neighbours, distances, facts)


def judged(work: Work, rows: Int32s, distances: Float32s) -> dict[str, float]:
    """How many of the plan's sampled rows are among some, ascending; and the recall of theirs."""
    plan = work.plan()
    sample, kth = plan.read(0, "sample"), plan.read(0, "kth")
    _, at, inside = np.intersect1d(rows, sample, assume_unique=True, return_indices=True)
    recall = tie_aware_recall(distances[at], kth[inside, None]) if len(inside) else 1.0
    return {"sampled": len(inside), "recall": recall}


def _write_part(
    work: Work, number: int, neighbours: Int32s, distances: Float32s, facts: Mapping[str, Any]
) -> None:
    arrays = {"neighbours": neighbours, "distances": distances}
    first = number * work.sizes.part_rows
    write(work, "part", number, [(0, arrays)], {"first": first, **facts})


def part_judged(work: Work, number: int) -> Mapping[str, Any]:
    """How good a part is, as `judged` tells; one of those that one task makes doesn't say it."""
    part = open_segments(work.path("part", number))
    if "sampled" in part.facts:
        return part.facts
    return judged(work, work.part_of_rows(number), part.read(0, "distances"))


def judged_recall(judged_files: Iterable[Mapping[str, Any]]) -> float:
    """Recall on the plan's sample, from what `judged` tells of each file."""
    told = list(judged_files)
    sampled = sum(each["sampled"] for each in told)
    return float(sum(each["sampled"] * each["recall"] for each in told) / sampled)


def keep_homes(work: Work, centres: Float32s, home: Int32s) -> None:
    """Write where every point lives, for the first update, which works on local paths only."""
    path, mark = work.path("homes"), work.mark("homes")
    if isinstance(path, Path) and not segments_finished(path, fingerprint=mark):
        arrays = {"centres": centres, "home": home}
        write_segments(path, [(0, arrays)], fingerprint=mark)


def final_part(work: Work, number: int) -> FinalRows:
    """The rows of a part, in its file."""
    rows = work.part_of_rows(number)
    return FinalRows(int(rows[0]), int(rows[-1]) + 1, ((work.path("part", number), 0),))
