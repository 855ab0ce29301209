"""Opening a table by its suffix, whatever its format.

Owns nothing but the choice between `csv_text` and `parquet_table`, and whole or partial reading.
"""

from pathlib import Path

import pyarrow as pa

from nearfield.errors import InputRejected, MissingFile
from nearfield.ingest.csv_text import TextTable, text_table
from nearfield.ingest.parquet_table import ParquetTable, parquet_table
from nearfield.ingest.rejects import RejectLog
from nearfield.ingest.sources import content_suffix

AnyTable = TextTable | ParquetTable


def is_parquet(path: Path) -> bool:
    """Whether the name says so."""
    return content_suffix(path) == ".parquet"


def open_table(
    path: Path, delimiter: str | None = None, header_rows: int | None = None
) -> AnyTable:
    """The table at `path`: Parquet by its suffix, else text. Raises `MissingFile`."""
    if not path.is_file():
        raise MissingFile(f"there is no table {path}: check the path")
    if is_parquet(path):
        return parquet_table(path)
    if delimiter is None and content_suffix(path) == ".tsv":
        delimiter = "\t"
    return text_table(path, delimiter, header_rows)


def read_whole(path: Path) -> pa.Table:
    """All rows of a side table (ids, labels) in memory. Raises `InputRejected` if one is malformed,
    since its rows stand for others.
    """
    table, rejects = open_table(path), RejectLog()
    chunks = [chunk for _, chunk in table.chunks(table.names, rejects)]
    if rejects.listed:
        first = rejects.listed[0]
        raise InputRejected(f"{path}, {first.item}: {first.reason} ({first.detail}). Mend the line")
    if not chunks:
        raise InputRejected(f"expected rows in {path}; it has a header and nothing else")
    return pa.concat_tables(chunks)
