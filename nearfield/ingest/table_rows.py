"""The pass over the rows of tables: numbers into a scratch file, ids and labels into memory.

Owns the rejection of single rows (`missing value`, `not a number`, `wrong length`, `unknown
category`) and the counting of records, on which an ids file depends.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.csv_text import MALFORMED, TextTable
from nearfield.ingest.ids import ROW_NUMBERS, canonical_text_ids, typed_ids
from nearfield.ingest.ids_file import read_ids, refuse_other_count
from nearfield.ingest.labels import as_label, stacked
from nearfield.ingest.layout import Layout
from nearfield.ingest.numbers import (
    Mask,
    is_list_of_numbers,
    is_number,
    is_text,
    numbers_of,
    text_of,
)
from nearfield.ingest.options import IngestOptions
from nearfield.ingest.raw import RawRows
from nearfield.ingest.rejects import Reject, RejectLog
from nearfield.ingest.table_files import AnyTable
from nearfield.progress import Advance
from nearfield.vectorset import ID_COLUMN

Records = NDArray[np.int64]
MOST_CATEGORIES = 1000
MISSING, UNKNOWN = -1.0, -2.0


@dataclass
class Codes:
    """The categories of one column, numbered in order of appearance; `closed`: no new ones."""

    name: str
    known: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    def of(self, texts: pa.ChunkedArray) -> NDArray[np.float64]:
        """Float64 [m]: the number of each row's category, or MISSING, or UNKNOWN."""
        encoded = texts.combine_chunks().dictionary_encode()
        places = [self._place(value) for value in encoded.dictionary.to_pylist()]
        codes = encoded.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)
        return np.array([*places, MISSING])[codes]

    def _place(self, value: str) -> float:
        if not self.closed and value not in self.known:
            self.known[value] = len(self.known)
            if len(self.known) > MOST_CATEGORIES:
                raise InputRejected(
                    f"column {self.name!r} has more than {MOST_CATEGORIES:,} different values, too"
                    " many for one-hot. Make it a label (--labels)"
                )
        return self.known.get(value, UNKNOWN)


class RowReader:
    """Reads tables of one layout, one after the other."""

    def __init__(self, layout: Layout, options: IngestOptions, rejects: RejectLog) -> None:
        self.layout, self.options, self.rejects = layout, options, rejects
        self.codes = _codes(layout, options)
        self.tables: list[AnyTable] = []
        self.starts = [0]
        self.records: list[Records] = []
        self.columns: defaultdict[str, list[pa.ChunkedArray]] = defaultdict(list)

    def read(self, table: AnyTable, stream: BinaryIO, advance: Advance) -> None:
        """Read one table to its end; its usable rows go to `stream` as float64."""
        self.tables.append(table)
        seen, malformed = 0, self.rejects.counts[MALFORMED]
        for records, chunk in table.chunks(self.layout.needed, self.rejects):
            raw, usable = self._numbers(table, records, chunk)
            stream.write(np.ascontiguousarray(raw[usable]).data)
            self.records.append(self.starts[-1] + records[usable])
            for name, column in self._kept(chunk):
                self.columns[name].append(column.filter(pa.array(usable)))
            seen += len(records)
            advance(len(records))
        self.starts.append(self.starts[-1] + seen + self.rejects.counts[MALFORMED] - malformed)

    def rows(self, path: Path) -> RawRows:
        """What was read, with the numbers in the file at `path`."""
        records = np.concatenate([np.empty(0, np.int64), *self.records])
        names = self.layout.number_names
        shape = (len(records), len(names) + len(self.codes))
        lists_only = all(width for _, width in self.layout.numbers) and not self.codes
        return RawRows(
            parts=[
                np.memmap(path, np.float64, "r", shape=shape) if len(records) else np.empty(shape)
            ],
            names=names,
            recordings=self._recordings(records),
            origin=lambda row: self._origin(int(records[row])),
            kind="table",
            layout={
                "numbers": [list(column) for column in self.layout.numbers],
                "categorical": list(self.layout.categorical),
            },
            scale="none" if lists_only else "standard",
            categories=tuple(tuple(codes.known) for codes in self.codes),
        )

    def facts(self) -> dict[str, object]:
        """What was chosen where the user left it open, and how many records there were."""
        id_column = None if self.options.ids else self.layout.id_column
        return {
            "rows_read": self.starts[-1],
            "ids": "given" if self.options.ids or id_column else ROW_NUMBERS,
            "id_column": id_column,
            "columns": [name for name, _ in self.layout.numbers],
            "categorical": {codes.name: len(codes.known) for codes in self.codes},
        }

    def _numbers(
        self, table: AnyTable, records: Records, chunk: pa.Table
    ) -> tuple[NDArray[np.float64], Mask]:
        """Raw rows float64 [m, numbers + categoricals] and which of them can be used."""
        self._check_types(table, chunk.schema)
        usable = np.ones(len(chunk), np.bool_)
        parts = []
        for name, reason, bad, values in self._judged(chunk):
            for row in np.flatnonzero(bad & usable):
                place = table.place(int(records[row]))
                self._reject(table, place, chunk.slice(int(row), 1), name=name, reason=reason)
            usable &= ~bad
            if values is not None:
                parts.append(values)
        return np.hstack(parts), usable

    def _check_types(self, table: AnyTable, schema: pa.Schema) -> None:
        """Raise `InputRejected` where a column can't be what it is in the first table or set."""
        for name, width in self.layout.numbers:
            kind = schema.field(name).type
            if width and not is_list_of_numbers(kind):
                expected = f"lists of {width} numbers"
            elif not width and not (is_number(kind) or is_text(kind) or pa.types.is_boolean(kind)):
                expected = "numbers"
            else:
                continue
            raise InputRejected(
                f"expected {expected} in column {name!r} of {table.path}; found {kind}"
            )

    def _judged(self, chunk: pa.Table) -> Iterator[tuple[str, str, Mask, NDArray[Any] | None]]:
        """Per column and reason: the rows that fall to it; with the last reason, the values."""
        for name, width in self.layout.numbers:
            numbers = numbers_of(chunk[name], width)
            yield name, "missing value", numbers.missing, None
            yield name, "wrong length" if width else "not a number", numbers.wrong, numbers.values
        for codes in self.codes:
            places = codes.of(text_of(chunk[codes.name]))
            yield codes.name, "missing value", places == MISSING, None
            yield codes.name, "unknown category", places == UNKNOWN, places[:, None]

    def _reject(
        self, table: AnyTable, place: str, row: pa.Table, *, name: str, reason: str
    ) -> None:
        id_column = None if self.options.ids else self.layout.id_column
        found = row[name][0].as_py()
        value = (
            f"a list of {len(found)}" if isinstance(found, list) else repr(str(found or "")[:60])
        )
        item = str(row[id_column][0].as_py() or place) if id_column else place
        self.rejects.add(Reject(str(table.path), item, reason, f"{place}, column {name}: {value}"))

    def _kept(self, chunk: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
        if not self.options.ids and self.layout.id_column is not None:
            yield ID_COLUMN, typed_ids(chunk[self.layout.id_column], self.layout.id_column)
        for name in self.layout.labels:
            yield name, as_label(chunk[name])

    def _recordings(self, records: Records) -> pa.Table:
        columns = {name: stacked(pieces) for name, pieces in self.columns.items()}
        if self.options.ids is not None:
            given = read_ids(self.options.ids, self.options.tables)
            refuse_other_count(given, self.options.ids, expected=self.starts[-1])
            given = given.take(pa.array(records))
            return pa.table({name: given[name] for name in given.column_names} | columns)
        ids = columns.pop(ID_COLUMN, pa.chunked_array([records]))
        if self.layout.id_column and all(isinstance(table, TextTable) for table in self.tables):
            ids = canonical_text_ids(ids)
        return pa.table({ID_COLUMN: ids, **columns})

    def _origin(self, record: int) -> tuple[str, str]:
        index = int(np.searchsorted(self.starts, record, side="right")) - 1
        return str(self.tables[index].path), self.tables[index].place(record - self.starts[index])


def _codes(layout: Layout, options: IngestOptions) -> list[Codes]:
    if options.base is None:
        return [Codes(name) for name in layout.categorical]
    stored = options.base.statistics["categories"]
    return [
        Codes(name, {value: place for place, value in enumerate(values)}, closed=True)
        for name, values in zip(layout.categorical, stored, strict=True)
    ]
