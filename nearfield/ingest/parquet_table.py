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

BATCH_VALUES = 2 << 20


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
            for batch in parquet.iter_batches(
                batch_size=max(1024, BATCH_VALUES // max(1, len(columns))), columns=list(columns)
            ):
                yield np.arange(seen, seen + len(batch)), pa.Table.from_batches([batch])
                seen += len(batch)


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
