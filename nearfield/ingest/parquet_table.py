"""Tables as Parquet. Owns reading them in bounded memory, with the same face as `TextTable`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.csv_text import refuse_repeated
from nearfield.ingest.rejects import RejectLog

BATCH_VALUES, LEAST_ROWS = 2 << 20, 64


@dataclass(frozen=True)
class ParquetTable:
    """One Parquet file."""

    path: Path
    names: tuple[str, ...]

    def place(self, record: int) -> str:
        """Where a record stands: its row, from 0."""
        return f"row {record}"

    def sample(self) -> pa.Table:
        """The first rows, all columns."""
        for _, chunk in self.chunks(self.names, RejectLog()):
            return chunk
        with _damage_rejected(self.path):
            return pq.read_schema(self.path).empty_table()

    def chunks(
        self, columns: Sequence[str], rejects: RejectLog
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Record numbers (from 0) and the asked columns, about BATCH_VALUES values at a time."""
        del rejects  # a Parquet file has no malformed records: it is whole or unreadable
        seen = 0
        with (
            _damage_rejected(self.path),
            pq.ParquetFile(
                self.path,
                pre_buffer=False,  # what Arrow reads ahead it keeps until the whole file is read
            ) as parquet,
        ):
            rows = max(LEAST_ROWS, BATCH_VALUES // _values_per_row(parquet.metadata, columns))
            for batch in parquet.iter_batches(batch_size=rows, columns=list(columns)):
                yield np.arange(seen, seen + len(batch)), pa.Table.from_batches([batch])
                seen += len(batch)


def _values_per_row(metadata: pq.FileMetaData, columns: Sequence[str]) -> int:
    """Values of the columns in a row on the average, those of lists counted singly."""
    wanted, values = set(columns), 0
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    for leaf in (group.column(place) for group in groups for place in range(group.num_columns)):
        parts = leaf.path_in_schema.split(".")
        if any(".".join(parts[:end]) in wanted for end in range(1, len(parts) + 1)):
            values += leaf.num_values
    return max(1, -(-values // max(1, metadata.num_rows)))


def parquet_table(path: Path) -> ParquetTable:
    """Open a Parquet file. Raises `InputRejected` when it is damaged or isn't one."""
    with _damage_rejected(path):
        names = tuple(pq.read_schema(path).names)
    refuse_repeated(names, path)
    return ParquetTable(path, names)


@contextmanager
def _damage_rejected(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputRejected(
            f"{path} can't be read as Parquet ({error}): it is cut off, damaged or another format."
            " Fetch it again"
        ) from error
