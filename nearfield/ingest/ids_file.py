"""A file of ids beside the rows: one a line, a .npy array, or a table with labels too.

Owns the formats of `--ids`; the count must equal the number of rows.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from nearfield.errors import InputRejected, MissingFile
from nearfield.ingest.ids import array_ids, canonical_text_ids, line_ids, typed_ids
from nearfield.ingest.labels import as_label, can_be_label
from nearfield.ingest.layout import found_id_column
from nearfield.ingest.options import TableOptions
from nearfield.ingest.sources import content_suffix
from nearfield.ingest.table_files import read_whole
from nearfield.vectorset import ID_COLUMN


def read_ids(path: Path, options: TableOptions) -> pa.Table:
    """Recording ids, and labels where the file is a table, in the order of the rows.

    A table's id column is the one named in the options, if it has it, else it is found as for any
    table; its other columns are labels. Raises `MissingFile`, `InputRejected`.
    """
    if not path.is_file():
        raise MissingFile(f"there is no ids file {path}: check the path")
    suffix = content_suffix(path)
    if suffix == ".npy":
        return pa.table({ID_COLUMN: _array(path)})
    if suffix in (".csv", ".tsv", ".parquet"):
        return _table(path, options)
    return pa.table({ID_COLUMN: line_ids(path)})


def refuse_other_count(ids: pa.Table, path: Path, *, expected: int) -> None:
    """Raise `InputRejected` unless there is one id for each of the `expected` rows."""
    if len(ids) != expected:
        raise InputRejected(
            f"expected {expected:,} ids, one per row; {path} has {len(ids):,}."
            " Give one id for every row, in the order of the rows"
        )


def _array(path: Path) -> pa.ChunkedArray:
    try:
        return array_ids(np.load(path, allow_pickle=False), str(path))
    except (ValueError, EOFError) as error:
        raise InputRejected(f"expected a .npy array of ids in {path}: {error}") from error


def _table(path: Path, options: TableOptions) -> pa.Table:
    table = read_whole(path)
    named = options.id_column if options.id_column in table.column_names else None
    id_column = named or found_id_column(table)
    if id_column is None:
        raise InputRejected(
            f"found no column of ids in {path}; columns: {', '.join(table.column_names)}."
            " Name it with --id-column"
        )
    ids = typed_ids(table[id_column], f"{path} ({id_column})")
    if content_suffix(path) != ".parquet":
        ids = canonical_text_ids(ids)
    labels = {
        name: as_label(table[name])
        for name in table.column_names
        if name not in (id_column, ID_COLUMN) and can_be_label(table[name].type)
    }
    return pa.table({ID_COLUMN: ids, **labels})
