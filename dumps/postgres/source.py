"""What a load reads of a run: the lists of the matrix and the recordings, in bounded blocks.

Owns the gate before the database: every list is looked at once more on its way.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dumps.matrix import FORMAT_VERSION
from nearfield.errors import DamagedArtefact, MissingFile, NearfieldError, UsageError
from nearfield.hdf5 import RowReader
from nearfield.manifest import check_file
from nearfield.run import Run
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import ID_COLUMN, VectorSet, open_vector_set

RECORDING_ROWS, READ_BYTES = 32_768, 1 << 20


@dataclass(frozen=True)
class Source:
    """An opened matrix. `labels` is the vector set that has them, None to load without.

    n: rows, of which those `removed` (int32, ascending) have no recording and aren't loaded.
    """

    file: Any
    readers: tuple[RowReader, RowReader]
    n: int
    k: int
    labels: VectorSet | None
    removed: Int32s

    def live(self, first: int = 0, last: int | None = None) -> int:
        """How many of the rows first..last-1 have a recording."""
        end = self.n if last is None else last
        low, high = np.searchsorted(self.removed, (first, end))
        return end - first - int(high - low)

    def rows_at(self, places: NDArray[np.int64]) -> Int32s:
        """Rows of the recordings at `places`, counted from 0 without the removed ones."""
        before = self.removed - np.arange(len(self.removed))
        return (places + np.searchsorted(before, places, side="right")).astype(np.int32)

    def block(
        self, first: int, stop: int, into: tuple[Int32s, Float32s] | None = None
    ) -> tuple[Int32s, Float32s]:
        """Neighbours int32 [m, k] and distances float32 [m, k] of rows first to stop - 1.

        As stored, in new arrays or in `into` (see `RowReader.read`). Several threads may read.
        """
        neighbours, distances = self.readers
        near, far = into or (None, None)
        return neighbours.read(first, stop, near), distances.read(first, stop, far)

    def lists(
        self, rows: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Int32s, Float32s]]:
        """(first row, neighbours int32 [m, k], distances float32 [m, k]), m <= rows, checked.

        From row `start` up to, not including, `stop` (None: the end). A removed row ends a block.
        """
        end = self.n if stop is None else stop
        for first in range(start, end, rows):
            neighbours, distances = self.block(first, min(end, first + rows))
            for low, high in self._runs(first, first + len(neighbours)):
                part = slice(low - first, high - first)
                check_lists(low, neighbours[part], distances[part], self.n)
                yield low, neighbours[part], distances[part]

    def _runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Rows first..stop-1 without the removed ones, as ranges."""
        low, high = np.searchsorted(self.removed, (first, stop))
        for row in self.removed[low:high].tolist():
            if row > first:
                yield first, row
            first = row + 1
        if first < stop:
            yield first, stop

    def recordings(self) -> Iterator[pa.RecordBatch]:
        """Ids and labels in row order."""
        if self.labels is not None:
            yield from _opened(self.labels).iter_batches(RECORDING_ROWS)
            return
        for first in range(0, self.n, RECORDING_ROWS):
            yield pa.record_batch({ID_COLUMN: self.texts(slice(first, first + RECORDING_ROWS))})

    def id_batches(self) -> Iterator[pa.StringArray]:
        """Ids of all rows in their order, as text: those that come with the labels are read sooner
        than the matrix file's, which `nearfield verify` has compared with them."""
        if self.labels is None:
            for first in range(0, self.n, RECORDING_ROWS):
                yield self.texts(slice(first, first + RECORDING_ROWS))
            return
        for batch in _opened(self.labels).iter_batches(RECORDING_ROWS, columns=[ID_COLUMN]):
            yield batch.column(0).cast(pa.string())

    def ids(self, rows: Any) -> list[str]:
        """Recording ids of the matrix file at `rows` (ascending, or a slice), as text."""
        values = self.file["recording_ids"][rows]
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def texts(self, rows: slice) -> pa.StringArray:
        """Recording ids of the matrix file at `rows`, as an Arrow array of text."""
        values = self.file["recording_ids"][rows]
        return pa.array(values, pa.binary() if values.dtype == object else None).cast(pa.string())


@contextmanager
def opened_source(run: Run, *, labels: bool) -> Iterator[Source]:
    """Open what `run` has to load; its matrix was checked against its manifest before.

    Raises `DamagedArtefact` for a matrix of another shape or format, and `UsageError` when labels
    are asked for and the vector set isn't there any more.
    """
    labelled = _labelled(run) if labels else None
    n, k = run.config.n, run.config.columns
    with h5py.File(run.matrix, "r") as file:
        version = file.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise DamagedArtefact(
                f"{run.matrix} has format {version}, expected {FORMAT_VERSION}: build it again"
            )
        for name, dtype in (("neighbours", np.int32), ("distances", np.float32)):
            if file[name].shape != (n, k) or file[name].dtype != dtype:
                raise DamagedArtefact(
                    f"expected {name} {np.dtype(dtype)} [{n}, {k}] in {run.matrix}, "
                    f"got {file[name].dtype} {file[name].shape}: build it again"
                )
        if file["recording_ids"].shape != (n,):
            raise DamagedArtefact(f"expected {n:,} recording ids in {run.matrix}: build it again")
        removed = file["removed"][:] if "removed" in file else np.empty(0, np.int32)
        with (
            closing(RowReader(file["neighbours"])) as neighbours,
            closing(RowReader(file["distances"])) as distances,
        ):
            yield Source(file, (neighbours, distances), n, k, labelled, removed)


def check_lists(first: int | Int32s, neighbours: Int32s, distances: Float32s, n: int) -> None:
    """Raise `DamagedArtefact` unless rows are in range and not the own, distances ascending.

    first: the first of consecutive rows, or all rows int32 [m].
    """
    rows = np.arange(first, first + len(neighbours)) if isinstance(first, int) else first
    own = rows[:, None]
    wrong = ((neighbours < 0) | (neighbours >= n) | (neighbours == own)).any(axis=1)
    wrong |= ~np.isfinite(distances).all(axis=1) | (np.diff(distances, axis=1) < 0).any(axis=1)
    if wrong.any():
        row = int(rows[int(np.argmax(wrong))])
        raise DamagedArtefact(
            f"row {row:,} of the matrix isn't a neighbour list (row numbers in 0..{n - 1:,} "
            "without itself, distances finite and ascending): nothing was published. Build it again"
        )


def _opened(labels: VectorSet) -> pq.ParquetFile:
    # what Arrow reads ahead it keeps until the whole file is read; unbuffered it reads row groups
    return pq.ParquetFile(
        labels.path / "recordings.parquet", pre_buffer=False, buffer_size=READ_BYTES
    )


def _labelled(run: Run) -> VectorSet:
    path = Path(run.config.vectors)
    try:
        found = open_vector_set(path, verify=False)
        name = "recordings.parquet"
        check_file(found.path / name, found.manifest.files[name])
        if found.fingerprint != run.config.vectors_fingerprint:
            raise MissingFile(f"{path} holds another vector set by now")
    except NearfieldError as error:
        raise UsageError(
            f"labels come from the vector set that the run was built from, and {error}. Put it "
            "back, or load ids without labels (--no-labels)"
        ) from error
    return found
