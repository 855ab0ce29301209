"""The lists of all rows in their order, from those of the distinct vectors as they come.

No row comes before the lowest of its group, so most lists are needed once. Those of groups with
several rows wait in a file for the others. Owns that file; the rule is `index_build.duplicates`'.
"""

from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from index_build.duplicates import Collapsed, expand
from nearfield.errors import disk_errors
from nearfield.locations import Location, folder_near
from nearfield.neighbours import NeighbourTable
from nearfield.space import Float32s, Int32s

Block = tuple[int, Int32s, Float32s]
BLOCK_ROWS = 50_000


def expanded_blocks(
    collapsed: Collapsed,
    tables: Iterable[NeighbourTable],
    k: int,
    *,
    own_first: bool,
    beside: Location,
) -> Iterator[Block]:
    """(first row, neighbours [m, c], distances [m, c]) of all rows without gaps, c = min(k, n - 1).

    tables: the lists of all groups, in their order and without gaps. own_first: see `expand`.
    beside: the directory on whose disk lists wait. Memory: a table and a block; disk: 8 bytes for
    each place in the list of a group with several rows. Raises `DiskFull`.
    """
    columns = min(k, len(collapsed.group_of) - 1)
    if not collapsed.any_equal:
        for table in tables:
            near, far = table.neighbours[:, :columns], table.distances[:, :columns]
            yield int(table.rows[0]), np.ascontiguousarray(near), np.ascontiguousarray(far)
        return
    shared = collapsed.shared
    with folder_near(beside) as folder, disk_errors(folder), TemporaryFile(dir=folder) as file:
        waiting = _Waiting(file)
        for table in tables:
            first_group, stop_group = int(table.rows[0]), int(table.rows[-1]) + 1
            low, high = np.searchsorted(shared, (first_group, stop_group))
            waiting.add(*_lists_of(table, shared[low:high]))
            for rows in _rows_up_to(collapsed, first_group, stop_group):
                groups = collapsed.group_of[rows]
                earlier = groups < first_group
                lists = _lists_of(table, np.where(earlier, first_group, groups))
                kept = waiting.at(np.searchsorted(shared, groups[earlier]))
                lists[0][earlier], lists[1][earlier] = kept
                yield int(rows[0]), *expand(collapsed, rows, *lists, k, own_first=own_first)


def _rows_up_to(collapsed: Collapsed, first_group: int, stop_group: int) -> Iterator[Int32s]:
    """Rows from the lowest of the first group on, before the lowest of `stop_group`, in blocks."""
    lowest = np.append(collapsed.representatives, len(collapsed.group_of))
    stop = int(lowest[stop_group])
    for first in range(int(lowest[first_group]), stop, BLOCK_ROWS):
        yield np.arange(first, min(stop, first + BLOCK_ROWS), dtype=np.int32)


def _lists_of(table: NeighbourTable, groups: Int32s) -> tuple[Int32s, Float32s]:
    places = groups - table.rows[0]
    return table.neighbours[places], table.distances[places]


class _Waiting:
    """Lists [m, places] in a file, one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.count, self.places = file, 0, 0

    def add(self, neighbours: Int32s, distances: Float32s) -> None:
        """Write further ones."""
        both = np.stack((neighbours, distances.view(np.int32)), axis=1)
        self.file.write(both.tobytes())
        self.file.flush()
        self.count += len(both)
        self.places = both.shape[2]

    def at(self, numbers: NDArray[np.integer]) -> tuple[Int32s, Float32s]:
        """Those of the numbers in which they were written."""
        shape = (self.count, 2, self.places)
        # an empty file can't be mapped
        kept = (
            np.memmap(self.file, np.int32, "r", shape=shape) if np.prod(shape) else np.empty(shape)
        )
        found = np.asarray(kept[numbers], np.int32)
        return found[:, 0], found[:, 1].view(np.float32)
