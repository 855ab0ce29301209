"""The self-join as one task with all threads of a machine, for data that one process can hold.

On one machine nothing is gained by cutting the join: its lists are the same to the bit, and neither
vectors nor candidates need to be written and read on the way (docs/adr/0012-one-host.md). Owns
when that is done, and the task; refuses to schedule.
"""

import numpy as np
from distributed.system import MEMORY_LIMIT

from index_build import plan
from index_build.selfjoin import Memory, Report, Request, cell_size, join_distinct
from index_build.work import Work, keep_homes, write, write_lists
from nearfield.traffic import note_read

WORKING_BYTES = 2 << 30
"""What the join may use beside vectors and lists (`index_build.selfjoin.memory`)."""
MEMORY_SHARE = 0.6
"""Of the machine's memory that it may take; Dask ends a worker at 0.95."""


def fits_one_task(n: int, d: int, k: int) -> bool:
    """Whether this machine can hold a join of n vectors at once.

    Not where it would have to plan with fewer training rows than shards can: lists would differ.
    """
    room = min(plan.WHOLE_BYTES, MEMORY_SHARE * MEMORY_LIMIT)
    return whole_bytes(n, d, k) <= room and _memory(n, d, k).trains_fully(n // cell_size(n, k))


def _memory(n: int, d: int, k: int) -> Memory:
    return Memory(WORKING_BYTES, n, d, k)


def whole_bytes(n: int, d: int, k: int) -> int:
    """Vectors, lists, and what the join may use."""
    return n * (4 * d + 8 * k) + WORKING_BYTES


def whole_task(work: Work, number: int, *, threads: int) -> None:
    """Task: all final parts, then a file that says how they were made."""
    vectors = work.mapped()
    note_read(vectors.nbytes)
    rows = np.arange(work.n, dtype=np.int32)
    several = np.flatnonzero(work.shared(0, work.n)).astype(np.int32)
    neighbours = np.empty((work.n, work.k), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    memory, report = _memory(work.n, vectors.shape[1], work.k), Report()
    request = Request(work.k, work.space, work.recall, threads, work.seed, memory)
    homes = join_distinct(vectors, rows, several, (neighbours, distances), request, report)
    if homes is not None:
        keep_homes(work, *homes)
    with report.phase("write parts"):
        for part, first in enumerate(work.part_starts()):
            chosen = slice(first, first + work.sizes.part_rows)
            write_lists(work, part, neighbours[chosen], distances[chosen])
    facts = {"recall": report.recall, "phases": report.seconds, **report.chosen}
    write(work, "whole", number, [], facts)
