"""The matrix as tables: Parquet with list columns, the flat Parquet, CSV, the sample, recordings.

Owns columns and encodings of each (docs/formats.md). A block of rows is held at a time, whatever n
is. Distances stay float32 to the bit: in CSV each is the shortest decimal that reads back as it.
"""

import csv
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import zstandard

from dumps.dump.list_pages import ListEncoder
from dumps.dump.row_groups import Chunk, joined_file
from dumps.dump.source import Lists, Matrix
from nearfield.files import synced_along
from nearfield.machine import available_cores
from nearfield.progress import Advance
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import ID_COLUMN

Made = TypeVar("Made")
SAMPLE_ROWS = 10_000
FLAT_PLACES = 1 << 18
"""Lines of the flat form that are held at once: each names a recording by its text."""
CSV_PLACES = 1 << 19
ZSTD_LEVEL = 1
CSV_ZSTD_LEVEL = 3
IDENTITY = [
    pa.field("row", pa.int32(), nullable=False),
    pa.field(ID_COLUMN, pa.string(), nullable=False),
]
LISTS = [
    pa.field("neighbours", pa.list_(pa.field("element", pa.int32(), False)), nullable=False),
    pa.field("distances", pa.list_(pa.field("element", pa.float32(), False)), nullable=False),
]
MATRIX_COLUMNS = [field.name for field in (*IDENTITY, *LISTS)]
NEIGHBOUR_IDS = pa.field(
    "neighbour_ids", pa.list_(pa.field("element", pa.string(), False)), nullable=False
)
FLAT = [
    pa.field(ID_COLUMN, pa.string(), nullable=False),
    pa.field("rank", pa.int32(), nullable=False),
    pa.field("neighbour_id", pa.string(), nullable=False),
    pa.field("distance", pa.float32(), nullable=False),
]


class RowGroup(NamedTuple):
    """Encoded lists of some recordings: a Parquet file, and further columns (row_groups.py)."""

    recordings: int
    encoded: memoryview
    chunks: Sequence[Chunk] = ()


class _Memory(threading.local):
    """Arrays of each thread, used again for every block: the system takes longer to provide new
    pages than it takes to split and compress what goes into them."""

    def __init__(self, rows: int, k: int) -> None:
        self.lists = np.empty((rows, k), np.int32), np.empty((rows, k), np.float32)
        self.encoder = ListEncoder(rows * k, ZSTD_LEVEL)


def write_parquet(path: Path, matrix: Matrix, advance: Advance) -> None:
    """One row per recording: row, recording_id, neighbours list<int32>, distances list<float>."""
    memory = _Memory(matrix.span_rows(), matrix.k)

    def encoded(span: slice) -> RowGroup:
        block = matrix.lists(span, memory.lists)
        table = pa.table(_identity(block), schema=pa.schema(IDENTITY))
        chunks = (
            memory.encoder.column("neighbours", block.neighbours),
            memory.encoder.column("distances", block.distances),
        )
        return RowGroup(len(block.rows), _row_group(table), chunks)

    schema = pa.schema([*IDENTITY, *LISTS])
    _write_row_groups(path, schema, _ahead(encoded, matrix.spans()), advance)


def write_flat(path: Path, matrix: Matrix, advance: Advance) -> None:
    """One row per pair: recording_id, rank from 1, neighbour_id, distance."""

    def encoded(span: slice) -> RowGroup:
        block = matrix.lists(span)
        m, k = block.neighbours.shape
        columns = [
            block.ids.take(pa.array(np.repeat(np.arange(m), k))),
            pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), m)),
            matrix.ids_at(block.neighbours.ravel()),
            pa.array(block.distances.ravel()),
        ]
        table = pa.table(columns, schema=pa.schema(FLAT))
        return RowGroup(m, _row_group(table, dictionary=[ID_COLUMN, "rank"]))

    groups = _ahead(encoded, matrix.spans(FLAT_PLACES))
    _write_row_groups(path, pa.schema(FLAT), groups, advance)


def _write_row_groups(
    path: Path, schema: pa.Schema, groups: Iterable[RowGroup], advance: Advance
) -> None:
    with joined_file(path, schema) as append, synced_along(path) as wrote:
        for group in groups:
            wrote(append(group.encoded, group.chunks))
            advance(group.recordings)


def _row_group(table: pa.Table, dictionary: Any = False) -> memoryview:
    """A Parquet file of one row group."""
    sink = pa.BufferOutputStream()
    with _parquet(sink, table.schema, dictionary) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue()).cast("B")


def write_sample(path: Path, matrix: Matrix) -> None:
    """Evenly spread recordings, at most 10,000, with the ids of their neighbours too."""
    count = matrix.recordings_count
    places = np.linspace(0, count - 1, min(count, SAMPLE_ROWS)).astype(np.int64)
    step = max(1, FLAT_PLACES // matrix.k)
    with _parquet(path, pa.schema([*IDENTITY, *LISTS, NEIGHBOUR_IDS])) as writer:
        for first in range(0, len(places), step):
            rows = matrix.source.rows_at(places[first : first + step])
            block = Lists(rows, *matrix.lists_at(rows), matrix.ids_at(rows))
            texts = matrix.ids_at(block.neighbours.ravel())
            named = pa.ListArray.from_arrays(_offsets(block.neighbours), texts)
            columns = [*_identity(block), *_lists(block), named]
            writer.write_table(pa.table(columns, schema=writer.schema))


def write_csv(path: Path, matrix: Matrix, advance: Advance) -> None:
    """One line per recording: row, recording_id, "{rows}", "{distances}", as COPY reads arrays."""

    def lines(span: slice) -> bytes:
        return _csv_lines(matrix.lists(span))

    with _compressed(path) as write:
        write(_header(MATRIX_COLUMNS))
        for text in _ahead(lines, matrix.spans(CSV_PLACES)):
            write(text)
            advance(text.count(b"\n"))


def write_recordings(path: Path, matrix: Matrix) -> None:
    """row, recording_id and the labels, as Parquet."""
    writer: Any = None
    with _parquet(path, None) as opened:
        for batch in _recordings(matrix):
            writer = writer or opened(batch.schema)
            writer.write_table(batch)


def write_recordings_csv(path: Path, matrix: Matrix) -> None:
    """row, recording_id and the labels, as CSV; an absent label is an empty field."""
    with _compressed(path) as write:
        for first, table in enumerate(_recordings(matrix)):
            if first == 0:
                write(_header(table.column_names))
            columns = [_plain_text(column) for column in table.columns]
            write(_as_csv(pa.table(columns, names=table.column_names)))


def _identity(block: Lists) -> list[pa.Array]:
    return [pa.array(block.rows), block.ids]


def _lists(block: Lists) -> list[pa.Array]:
    offsets = _offsets(block.neighbours)
    return [
        pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()), type=kind)
        for values, kind in zip(
            (block.neighbours, block.distances), (field.type for field in LISTS), strict=True
        )
    ]


def _offsets(lists: Int32s | Float32s) -> pa.Array:
    m, k = lists.shape
    return pa.array(np.arange(0, m * k + 1, k, dtype=np.int32))


def _csv_lines(block: Lists) -> bytes:
    columns = [*_identity(block), _braced(block.neighbours), _braced(block.distances)]
    return _as_csv(pa.table(columns, names=MATRIX_COLUMNS))


def _braced(values: Int32s | Float32s) -> pa.Array:
    """Lists [m, k] as text {a,b,c}; Arrow writes a float32 as its shortest decimal."""
    texts = pa.array(values.ravel()).cast(pa.string())
    lists = pa.ListArray.from_arrays(_offsets(values), texts)
    return pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", "")


def _header(names: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().encode()


def _as_csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pv.write_csv(table, sink, pv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())


def _recordings(matrix: Matrix) -> Iterator[pa.Table]:
    for rows, batch in matrix.recordings():
        table = pa.Table.from_batches([batch])
        place = table.column_names.index(ID_COLUMN)
        table = table.set_column(place, IDENTITY[1], table[ID_COLUMN].cast(pa.string()))
        names = ["label_row" if name == "row" else name for name in table.column_names]
        yield table.rename_columns(names).add_column(0, IDENTITY[0], pa.array(rows))


def _plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What write_csv can't write as it is becomes text; lists and structures become JSON."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        texts = [None if v is None else msgspec.json.encode(v).decode() for v in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column


@contextmanager
def _parquet(target: Any, schema: Any, dictionary: Any = False) -> Iterator[Any]:
    """A writer to a path or an Arrow stream, or a function from a schema to one.

    Row groups are compressed with zstd, and as large as the tables that are written.
    """
    opened: list[pq.ParquetWriter] = []

    def open_with(chosen: pa.Schema) -> pq.ParquetWriter:
        kinds = {name: field.type for name, field in _leaves(chosen)}
        opened.append(
            pq.ParquetWriter(
                target,
                chosen,
                compression="zstd",
                compression_level=ZSTD_LEVEL,
                use_dictionary=dictionary,
                # the bytes of numbers apart from each other: smaller, and twice as fast
                column_encoding={
                    name: "BYTE_STREAM_SPLIT" for name, kind in kinds.items() if kind == "float"
                },
                write_statistics=["row", ID_COLUMN],
            )
        )
        return opened[0]

    try:
        yield open_with if schema is None else open_with(schema)
    finally:
        for writer in opened:
            writer.close()


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.Field]]:
    for field in schema:
        if pa.types.is_list(field.type):
            yield f"{field.name}.list.element", field.type.value_field
        else:
            yield field.name, field


@contextmanager
def _compressed(path: Path) -> Iterator[Callable[[bytes], Any]]:
    compressor = zstandard.ZstdCompressor(CSV_ZSTD_LEVEL, threads=available_cores())
    with path.open("wb") as stream, compressor.stream_writer(stream, closefd=False) as sink:
        yield sink.write


def _ahead(function: Callable[[slice], Made], spans: Iterable[slice]) -> Iterator[Made]:
    """function(span) of each span in order, on all cores, with few of them in memory."""
    cores = available_cores()
    due: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for span in spans:
                due.append(pool.submit(function, span))
                if len(due) > 2 * cores:
                    yield due.popleft().result()
            while due:
                yield due.popleft().result()
        finally:
            for future in due:
                future.cancel()
