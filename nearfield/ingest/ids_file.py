"""A file of ids beside the rows: one a line, a .npy array, or a table with labels too.

Owns the formats of `--ids`; the count must equal the number of rows.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from nearfield.errors import InputRejected, MissingFile
from nearfield.ingest.ids import array_ids, line_ids
from nearfield.ingest.options import TableOptions
from nearfield.ingest.sources import content_suffix
from nearfield.vectorset import ID_COLUMN


def read_ids(path: Path, options: TableOptions, *, expected: int | None) -> pa.Table:
    """Recording ids, and labels where the file is a table, in the order of the rows.

    Raises `MissingFile`, or `InputRejected` when there aren't `expected` of them.
    """
    if not path.is_file():
        raise MissingFile(f"there is no ids file {path}: check the path")
    table = _read(path, options)
    if expected is not None and len(table) != expected:
        raise InputRejected(
            f"expected {expected:,} ids, one per row; {path} has {len(table):,}."
            " Give one id for every row, in the order of the rows"
        )
    return table


def _read(path: Path, options: TableOptions) -> pa.Table:
    suffix = content_suffix(path)
    if suffix == ".npy":
        try:
            return pa.table({ID_COLUMN: array_ids(np.load(path, allow_pickle=False), str(path))})
        except ValueError as error:
            raise InputRejected(f"expected a .npy array of ids in {path}: {error}") from error
    return pa.table({ID_COLUMN: line_ids(path)})
