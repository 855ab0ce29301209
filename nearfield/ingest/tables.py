"""Tables: CSV and Parquet files to vectors, ids and labels.

Owns the order of it: open, decide the columns (or take those of the set being extended), read, make
vectors. The look of a file is `csv_text`'s and `parquet_table`'s business, the roles of columns are
`layout`'s, the pass over the rows is `table_rows`', and the making of vectors is `raw`'s.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.layout import (
    Layout,
    choose_layout,
    chosen_id,
    label_names,
    require_column,
)
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.raw import finished
from nearfield.ingest.rejects import RejectLog
from nearfield.ingest.table_files import AnyTable, is_parquet, open_table
from nearfield.ingest.table_rows import RowReader
from nearfield.progress import progress
from nearfield.vectorset import Geometry


def gather_tables(
    sources: Sequence[Path], options: IngestOptions, work: Path, rejects: RejectLog
) -> Gathered:
    """The rows of CSV and Parquet files, one file after the other, as vectors.

    The first file decides the columns; the others must have them. Reasons of rejection here: `wrong
    number of columns`, `missing value`, `not a number`, `wrong length`, `unknown category`; the
    rest is in `nearfield.ingest.raw`. Cost: one parse of the files, then passes over a scratch file
    of 8 bytes per number; ids and labels stay in memory.
    """
    choice = options.tables
    if (choice.delimiter or choice.header_rows is not None) and all(map(is_parquet, sources)):
        raise UsageError("--delimiter and --header-rows mean nothing for Parquet: leave them out")
    tables = [open_table(source, choice.delimiter, choice.header_rows) for source in sources]
    layout = _layout(tables[0], options)
    for table in tables[1:]:
        for name in layout.needed:
            require_column(name, table.names, str(table.path))
    reader = RowReader(layout, options, rejects)
    path = work / "rows.f64"
    with path.open("wb") as stream, progress("rows", None, "rows") as advance:
        for table in tables:
            reader.read(table, stream, advance)
    gathered = finished(reader.rows(path), options, work, rejects)
    path.unlink()
    gathered.facts.update(reader.facts())
    return gathered


def _layout(table: AnyTable, options: IngestOptions) -> Layout:
    sample = table.sample()
    if len(sample) == 0:
        raise InputRejected(f"expected rows in {table.path}; it has a header and nothing else")
    if options.base is None:
        return choose_layout(sample, options.tables, str(table.path), ids=options.ids is not None)
    return _layout_of_base(sample, options.base, options, str(table.path))


def _layout_of_base(sample: pa.Table, base: Geometry, given: IngestOptions, where: str) -> Layout:
    """The columns with which the set being extended was made; id and labels are chosen anew."""
    options = given.tables
    if base.statistics.get("kind") != "table":
        raise InputRejected(
            f"can't extend: the set was made from {base.statistics.get('kind', 'other sources')},"
            f" {where} is a table"
        )
    numbers = tuple((name, int(width)) for name, width in base.statistics["numbers"])
    categorical = tuple(base.statistics["categorical"])
    for asked, stored in (
        (options.columns, tuple(name for name, _ in numbers)),
        (options.categorical, categorical),
    ):
        if asked and asked != stored:
            raise UsageError(
                f"can't extend with columns {', '.join(asked)}: the set was made with"
                f" {', '.join(stored) or 'none'}. Leave out --columns and --categorical"
            )
    named = tuple(name for name, _ in numbers)
    for name in (*named, *categorical, *options.labels):
        require_column(name, sample.column_names, where)
    # a number of the set isn't the id, however well it would do as one
    taken = (*named, *categorical)
    id_column = None if given.ids else chosen_id(sample, options.id_column, where, taken=taken)
    labels = options.labels or label_names(sample, id_column, named)
    return Layout(id_column, numbers, categorical, labels)
