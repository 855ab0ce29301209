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

from dumps.dump.ids import MappedIds
from dumps.postgres.source import Source, opened_source
from nearfield.errors import DamagedArtefact
from nearfield.run import Run
from nearfield.space import Float32s, Int32s

BLOCK_PLACES = 1 << 19
"""Places of the matrix in a block, and so in a row group: 4 MiB of lists. A lookup reads one."""
BLOCK_ROWS = 1 << 16
"""At most, where lists are short: a row has an id, too."""


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
    """An opened matrix of n rows and k columns; rows in `source.removed` have no recording.

    `ids`: of all rows, at hand; without them the matrix file is asked, which takes longer.
    """

    source: Source
    ids: MappedIds | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.source.n

    @property
    def recordings_count(self) -> int:
        """Rows that have a recording: what a dump holds."""
        return self.source.live()

    @property
    def k(self) -> int:
        """Neighbours per recording."""
        return self.source.k

    def blocks(self, places: int = BLOCK_PLACES, start: int = 0) -> Iterator[Lists]:
        """The lists of all recordings from row `start` on, in blocks of `span_rows`."""
        return map(self.lists, self.spans(places, start))

    def spans(self, places: int = BLOCK_PLACES, start: int = 0) -> Iterator[slice]:
        """The rows of those blocks."""
        step = self.span_rows(places)
        return (slice(first, min(self.n, first + step)) for first in range(start, self.n, step))

    def span_rows(self, places: int = BLOCK_PLACES) -> int:
        """The most rows of such a block."""
        return max(1, min(BLOCK_ROWS, places // self.k))

    def lists(self, span: slice, into: tuple[Int32s, Float32s] | None = None) -> Lists:
        """The lists of the recordings in a span of rows; several threads may ask.

        In new memory, or in arrays for as many rows that are used again.
        """
        whole = Lists(
            np.arange(span.start, span.stop, dtype=np.int32),
            *self.source.block(span.start, span.stop, into),
            self.ids.span(span) if self.ids else self.source.texts(span),
        )
        return whole.only(self._live(span.start, span.stop))

    def lists_at(self, rows: Int32s) -> tuple[Int32s, Float32s]:
        """Neighbours and distances [m, k] of m single rows, read one by one."""
        lists = [self.source.block(row, row + 1) for row in rows.tolist()]
        return np.concatenate([near for near, _ in lists]), np.concatenate(
            [far for _, far in lists]
        )

    def ids_at(self, rows: Int32s) -> pa.StringArray:
        """Ids of m rows in any order."""
        if self.ids:
            return self.ids.at(rows)
        asked, places = np.unique(rows, return_inverse=True)
        return pa.array(self.source.ids(asked), pa.string()).take(pa.array(places))

    def _live(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of the rows first..stop-1 have a recording."""
        removed = self.source.removed
        low, high = np.searchsorted(removed, (first, stop))
        live = np.ones(stop - first, bool)
        live[removed[low:high] - first] = False
        return live

    def recordings(self) -> Iterator[tuple[Int32s, pa.RecordBatch]]:
        """Rows [m], and the ids and labels there."""
        first = 0
        for batch in self.source.recordings():
            live = self._live(first, first + batch.num_rows)
            yield (first + np.flatnonzero(live)).astype(np.int32), batch.filter(pa.array(live))
            first += batch.num_rows


@contextmanager
def opened_matrix(run: Run, *, labels: bool) -> Iterator[Matrix]:
    """Open the matrix of `run`, whose checksum was compared before; see `opened_source`."""
    with opened_source(run, labels=labels) as source:
        yield Matrix(source)


def mapped_ids(source: Source, folder: Path) -> MappedIds:
    """The ids of all rows, in files on the disk of `folder`."""
    ids = MappedIds(folder, source.id_batches())
    if ids.n != source.n:
        raise DamagedArtefact(
            f"expected {source.n:,} recordings in the vector set, got {ids.n:,}: build again"
        )
    return ids
