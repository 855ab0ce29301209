"""Labels: what travels with the vectors and isn't compared (title, artist, genre, anything).

Owns the types a label may have and the join of a further table by recording id.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.numbers import is_number, is_text, text_of
from nearfield.ingest.table_files import read_whole
from nearfield.vectorset import ID_COLUMN


def can_be_label(kind: pa.DataType) -> bool:
    """Whether a column of that type can travel: text, a number, a truth value, a date or time."""
    return is_text(kind) or is_number(kind) or bool(pa.types.is_temporal(kind))


def as_label(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text, int64, float64 or truth values; empty text is null, a date is text.

    Raises `InputRejected` for lists, structures and bytes.
    """
    kind = column.type
    if not can_be_label(kind):
        raise InputRejected(f"expected text, numbers or dates as labels; found {kind}")
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    return column.cast(pa.float64()) if is_number(kind) else text_of(column)


def stacked(pieces: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The pieces one after the other; as text when their types differ."""
    kinds = {piece.type for piece in pieces}
    if len(kinds) > 1:
        pieces = [piece.cast(pa.string()) for piece in pieces]
    return pa.chunked_array(
        [chunk for piece in pieces for chunk in piece.chunks], type=pieces[0].type
    )


def placed(old: pa.Table, new: pa.Table, place: NDArray[np.integer], n: int) -> pa.Table:
    """Ids and labels of `n` rows: those of `old`, and of `new` at the rows `place` [m], ascending
    beyond `old`'s.

    A label of `new` replaces an old one unless it is null; those that only one has are kept. A
    column is text where its types differ.
    """
    source = np.full(n, -1)
    source[place] = np.arange(len(place))
    take = pa.array(source, mask=source < 0)
    columns = {}
    for name in dict.fromkeys((*old.column_names, *(new.column_names if len(new) else ()))):
        before, after = (_column(table, name) for table in (old, new))
        kinds = {column.type for column in (before, after)} - {pa.null()}
        kind = kinds.pop() if len(kinds) == 1 else pa.string()
        there = stacked([before.cast(kind), pa.chunked_array([pa.nulls(n - len(old), kind)])])
        columns[name] = pc.coalesce(after.cast(kind).take(take), there)
    return pa.table(columns)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(len(table))])


def with_labels_from(recordings: pa.Table, path: Path) -> tuple[pa.Table, int]:
    """The recordings with the columns of the table at `path`, and how many of them it names.

    The key is the column of text or integers that names the most recordings; where it repeats, its
    first row counts. A label of the same name is replaced. Raises `InputRejected` when no column
    names any recording. Cost: the whole table in memory.
    """
    table = read_whole(path)
    ids = recordings[ID_COLUMN].cast(pa.string())
    places = {
        name: pc.index_in(ids, value_set=text_of(table[name]).combine_chunks())
        for name in table.column_names
        if is_text(table[name].type) or pa.types.is_integer(table[name].type)
    }
    matched = {name: len(ids) - found.null_count for name, found in places.items()}
    key = max(matched, key=lambda name: matched[name], default=None)
    if key is None or matched[key] == 0:
        raise InputRejected(
            f"no column of {path} names any of the {len(ids):,} recordings (the first is"
            f" {ids[0].as_py()!r}); columns: {', '.join(table.column_names)}"
        )
    for name in table.column_names:
        if name not in (key, ID_COLUMN) and can_be_label(table[name].type):
            recordings = _replaced(recordings, name, as_label(table[name]).take(places[key]))
    return recordings, matched[key]


def _replaced(recordings: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    if name in recordings.column_names:
        return recordings.set_column(recordings.column_names.index(name), name, column)
    return recordings.append_column(name, column)
