"""The tasks of the exact way for circles and lines on a cluster: sorted once, walked in parts.

    plan      all points in the order in which they lie                     once
    part      the final lists of a range of rows                            per range of rows

Sorting takes O(n log n) and about 100 n bytes; a part holds 12 + 16 d bytes per point (d <= 2),
and the lists of its rows. Owns the files' arrays (docs/formats.md); refuses to schedule.
"""

import numpy as np

from index_build.selfjoin import Sorted, track_of, walk
from index_build.work import Work, write, write_lists
from nearfield.errors import DamagedArtefact
from nearfield.traffic import note_read


def plan_task(work: Work, number: int, *, threads: int) -> None:
    """Task: `rows` int32 [n] in their order, `places` float64 [n]; facts `turn` and `radius`."""
    del threads
    note_read(work.mapped().nbytes)
    track = track_of(work.mapped(), np.arange(work.n, dtype=np.int32), work.space)
    if track is None:
        raise DamagedArtefact(
            f"{work.vectors}: expected vectors on one circle or line, as the build found them; "
            "they have changed. Build into a new directory"
        )
    facts = {"turn": track.turn, "radius": track.radius}
    write(work, "plan", number, [(0, {"rows": track.rows, "places": track.places})], facts)


def part_task(work: Work, number: int, *, threads: int) -> None:
    """Task: final lists of a range of rows."""
    plan, rows = work.plan(), work.part_of_rows(number)
    order = plan.read(0, "rows")
    note_read(work.mapped().nbytes)
    coordinates = work.mapped()[order].astype(np.float64)
    line = Sorted(
        coordinates, order, plan.read(0, "places"), plan.facts["turn"], plan.facts["radius"]
    )
    at = np.flatnonzero((order >= rows[0]) & (order <= rows[-1])).astype(np.int32)
    neighbours = np.empty((len(rows), work.k), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    walk(
        line, at, order[at] - rows[0], (neighbours, distances, work.k),
        half=work.space == "cosine", threads=threads,
    )  # fmt: skip
    write_lists(work, number, neighbours, distances)
