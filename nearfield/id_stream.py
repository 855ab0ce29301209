"""Recording ids in row order, a batch at a time: nobody needs all of them in memory to write them.

Owns reading them from a vector set's `recordings.parquet`, whose checksum is compared before the
first id is handed out. Refuses to look one up.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nearfield.errors import DamagedArtefact

BATCH_ROWS = 65_536
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class IdStream:
    """`n` ids, strings or (`numbers`) int64. nbytes: about what they take, lengths included.

    batches: a function that reads them from the first one on.
    """

    n: int
    numbers: bool
    nbytes: int
    batches: Callable[[], Iterator[pa.Array]]


def held_ids(ids: pa.ChunkedArray) -> IdStream:
    """Ids that are in memory already."""
    return IdStream(len(ids), pa.types.is_integer(ids.type), ids.nbytes, lambda: iter(ids.chunks))


def stored_ids(path: Path, column: str, *, sha256: str) -> IdStream:
    """The ids in a column of a Parquet file. Reading them raises `DamagedArtefact` if its content
    isn't what `sha256` is of. Memory: one batch, whatever the file's row groups are."""
    facts = pq.read_metadata(path)
    kind = facts.schema.to_arrow_schema().field(column).type
    # of nested columns there may be several leaves
    leaf = next(
        leaf for leaf in range(facts.num_columns) if facts.schema.column(leaf).path == column
    )
    groups = map(facts.row_group, range(facts.num_row_groups))
    nbytes = sum(group.column(leaf).total_uncompressed_size for group in groups)

    def batches() -> Iterator[pa.Array]:
        # one opened file: whatever replaces it in the meantime isn't read
        with pa.OSFile(str(path)) as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                raise DamagedArtefact(f"{path} was replaced while it was being read: open it again")
            stream.seek(0)
            # what Arrow reads ahead it keeps until the whole file is read, and without a buffer
            # it reads a whole row group
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES)
            for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
                yield batch.column(0)

    return IdStream(facts.num_rows, pa.types.is_integer(kind), nbytes, batches)
