"""Where the final lists of a range of rows lie: one file, or pieces of several.

Owns their reading back into one table; a row that is missing or there twice is an error. Refuses to
know who made them.
"""

from dataclasses import dataclass

import numpy as np

from index_build.segments import open_segments
from nearfield.errors import DamagedArtefact
from nearfield.locations import Location
from nearfield.neighbours import NeighbourTable
from nearfield.space import Float32s, Int32s

Piece = tuple[Location, int]


@dataclass(frozen=True)
class FinalRows:
    """The lists of rows first..stop-1. pieces: files of segments, and which segment of each holds
    `points` (some of the rows, ascending) with their `neighbours` and `distances`.

    A file's only piece may leave its points away: then it has all rows.
    """

    first: int
    stop: int
    pieces: tuple[Piece, ...]

    def table(self) -> NeighbourTable:
        """The lists. Raises `DamagedArtefact`, `MissingFile`."""
        rows = np.arange(self.first, self.stop, dtype=np.int32)
        if len(self.pieces) == 1:
            path, segment = self.pieces[0]
            file = open_segments(path)
            neighbours, distances = (file.read(segment, it) for it in ("neighbours", "distances"))
            return NeighbourTable(rows, neighbours, distances)
        return self._gathered(rows)

    def _gathered(self, rows: Int32s) -> NeighbourTable:
        lists: tuple[Int32s, Float32s] | None = None
        held, room = np.zeros(len(rows), np.int32), np.empty(0, np.uint8)
        for path, segment in self.pieces:
            file = open_segments(path)
            shape = file.entries[segment, "neighbours"][1]
            if lists is None:
                whole = (len(rows), shape[1])
                lists = np.empty(whole, np.int32), np.empty(whole, np.float32)
            if room.nbytes < 4 * shape[0] * shape[1]:
                room = np.empty(4 * shape[0] * shape[1], np.uint8)
            places = file.read(segment, "points") - np.int32(self.first)
            # fresh memory for each piece would cost more than what is done with it
            lists[0][places] = file.read(segment, "neighbours", into=room)
            lists[1][places] = file.read(segment, "distances", into=room)
            held[places] += 1
        if lists is None or (held != 1).any():
            wrong = f"{self.first + int(np.argmax(held != 1)):,}"
            raise DamagedArtefact(
                f"row {wrong} isn't there exactly once among the final lists of rows "
                f"{self.first:,} to {self.stop - 1:,}: build into a new directory"
            )
        return NeighbourTable(rows, *lists)
