"""What a dump is made of: a verified run's lists, ids and recordings, a block at a time.

Owns the reading for the writers of tables; the gate and the opening are shared with the database
(dumps/postgres). Refuses to know any output format.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dumps.postgres.source import Source, opened_source
from nearfield.run import Run
from nearfield.space import Float32s, Int32s

BLOCK_PLACES = 1 << 19
"""Places of the matrix in a block, and so in a row group: 4 MiB of lists. A lookup reads one."""
ID_ROWS = 32_768


@dataclass(frozen=True)
class Lists:
    """Of m recordings: rows int32 [m] ascending, neighbours int32 [m, k], distances float32 [m, k],
    and their ids as text."""

    rows: Int32s
    neighbours: Int32s
    distances: Float32s
    ids: pa.StringArray

    def only(self, chosen: NDArray[np.bool_]) -> "Lists":
        """Those of the recordings for which chosen [m] is true."""
        if chosen.all():
            return self
        ids = self.ids.filter(pa.array(chosen))
        return Lists(self.rows[chosen], self.neighbours[chosen], self.distances[chosen], ids)


@dataclass(frozen=True)
class Matrix:
    """An opened matrix of n rows and k columns; rows in `removed` bool [n] have no recording."""

    source: Source
    removed: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.source.n

    @property
    def recordings_count(self) -> int:
        """Rows that have a recording: what a dump holds."""
        return self.n - int(self.removed.sum())

    @property
    def k(self) -> int:
        """Neighbours per recording."""
        return self.source.k

    def blocks(self, places: int = BLOCK_PLACES, start: int = 0) -> Iterator[Lists]:
        """The lists of all recordings from row `start` on, in blocks of about `places` / k rows."""
        step = max(1, places // self.k)
        for first in range(start, self.n, step):
            chosen = slice(first, min(self.n, first + step))
            yield Lists(
                np.arange(first, chosen.stop, dtype=np.int32),
                *self.source.block(first, chosen.stop),
                self.source.texts(chosen),
            ).only(~self.removed[chosen])

    def recordings(self) -> Iterator[tuple[Int32s, pa.RecordBatch]]:
        """Rows [m], and the ids and labels there."""
        first = 0
        for batch in self.source.recordings():
            live = ~self.removed[first : first + batch.num_rows]
            yield (first + np.flatnonzero(live)).astype(np.int32), batch.filter(pa.array(live))
            first += batch.num_rows

    def mapped_ids(self, folder: Path) -> pa.LargeStringArray:
        """All n ids as text, in files below `folder` that are mapped, not held in memory."""
        data, offsets = folder / "ids", folder / "offsets"
        end = 0
        with data.open("wb") as text, offsets.open("wb") as ends:
            ends.write(np.zeros(1, "<i8").tobytes())
            for first in range(0, self.n, ID_ROWS):
                ids = [v.encode() for v in self.source.ids(slice(first, first + ID_ROWS))]
                text.write(b"".join(ids))
                stops = end + np.cumsum([len(v) for v in ids], dtype=np.int64)
                ends.write(stops.astype("<i8").tobytes())
                end = int(stops[-1])
        buffers = [pa.memory_map(str(path)).read_buffer() for path in (offsets, data)]
        return pa.LargeStringArray.from_buffers(self.n, *buffers)


@contextmanager
def opened_matrix(run: Run, *, labels: bool) -> Iterator[Matrix]:
    """Open the matrix of `run`, whose checksum was compared before; see `opened_source`."""
    with opened_source(run, labels=labels) as source:
        removed = np.zeros(source.n, bool)
        if "removed" in source.file:
            removed[source.file["removed"][:]] = True
        yield Matrix(source, removed)
