"""Readers of each format of a dump for its check: blocks of the same rows out of any file.

Owns the rules that a file must meet to be read as lists at all (columns, types, lengths, row
numbers, no nulls). Shares no code with the writers, and believes no file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dumps.checks import layout_problems
from dumps.dump.known import KnownIds
from dumps.guard import unreadable
from nearfield.errors import InputRejected
from nearfield.run import RunConfig

CSV_BLOCK_BYTES, READ_BYTES = 2 << 20, 1 << 20
"""Arrow reads 32 blocks of a CSV file ahead."""
PLACES = 1 << 18
"""Places of the sample whose ids are looked up at once."""
RECORDING = {"row": pa.int32(), "recording_id": pa.string()}
LISTS = {"neighbours": pa.int32(), "distances": pa.float32()}


@dataclass(frozen=True)
class Block:
    """Rows int32 [m] and ids of m recordings, neighbours int32 [m, k], distances float32 [m, k].

    Of pairs: ids are those of both sides, and `neighbours` the ranks.
    """

    rows: NDArray[np.int32]
    ids: Any
    neighbours: NDArray[np.int32]
    distances: NDArray[np.float32]


def lists_of(path: Path, config: RunConfig, rows: int) -> Iterator[Block]:
    """The lists of a matrix file, `rows` at a time. Raises what its library raises, and
    `InputRejected` for a file of another layout."""
    if path.suffix == ".h5":
        tables = _hdf5(path, config, rows)
    else:
        tables = _csv(path, config.columns) if path.suffix == ".zst" else _parquet(path, rows)
    for table in _reblocked(tables, rows):
        yield Block(
            _numbers(table["row"]),
            _one(table["recording_id"]),
            *(_matrix(table[name], config.columns, LISTS[name]) for name in LISTS),
        )


def sample_of(path: Path, config: RunConfig, known: KnownIds) -> Block:
    """The sample, whose ids were compared with the known ones."""
    file, k = _opened(path), config.columns
    if file.metadata.num_rows != min(known.count, 10_000):
        raise InputRejected(f"it has {file.metadata.num_rows:,} rows")
    parts = []
    for table in _batches(file, max(1, PLACES // k)):
        rows = _numbers(table["row"])
        neighbours, distances = (_matrix(table[name], k, LISTS[name]) for name in LISTS)
        named = _values(table["neighbour_ids"], k, pa.string())
        ids = known.at(rows)
        same = ids.equals(_one(table["recording_id"])) and known.at(neighbours).equals(named)
        if not same:
            raise InputRejected("it has other recording ids than recordings.parquet")
        parts.append(Block(rows, ids, neighbours, distances))
    return _joined(parts)


def _joined(parts: list[Block]) -> Block:
    rows = np.concatenate([part.rows for part in parts])
    if (np.diff(rows) <= 0).any():
        raise InputRejected("its rows don't ascend")
    return Block(
        rows,
        pa.concat_arrays([part.ids for part in parts]),
        np.concatenate([part.neighbours for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


def flat_pairs(path: Path, config: RunConfig, rows: int) -> Iterator[Block]:
    """The pairs of `rows` recordings at a time: ids of both sides, ranks, distances."""
    k = config.columns
    file = _opened(path)
    _check_types(
        file.schema_arrow,
        {"recording_id": pa.string(), "rank": pa.int32(), "neighbour_id": pa.string(),
         "distance": pa.float32()},
    )  # fmt: skip
    for table in _reblocked(_batches(file, 1 << 16), rows * k):
        columns = {name: _one(table[name]) for name in table.column_names}
        yield Block(
            np.empty(0, np.int32),
            (columns["recording_id"], columns["neighbour_id"]),
            columns["rank"].to_numpy().reshape(-1, k),
            columns["distance"].to_numpy().reshape(-1, k),
        )


def recordings_of(path: Path, rows: int) -> Iterator[tuple[NDArray[np.int32], pa.StringArray]]:
    """Rows int32 [m] and ids [m] of the recordings of the dump at `path`, `rows` at a time."""
    file = _recordings(path)
    for table in _reblocked(_batches(file, rows, [*RECORDING]), rows):
        yield _numbers(table["row"]), _one(table["recording_id"])


def read_recordings(path: Path, config: RunConfig, step: int, known: KnownIds) -> list[str]:
    """Make all recordings of the dump at `path` known; says where the CSV of them differs."""
    file = _recordings(path)
    schema = file.schema_arrow
    if not 2 <= file.metadata.num_rows <= config.n:
        raise InputRejected(f"it has {file.metadata.num_rows:,} recordings of {config.n:,}")
    texts = path / "recordings.csv.zst"
    others = _reblocked(_csv_tables(texts, schema.names), step) if texts.exists() else None
    comparable = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_integer(field.type)
    ]
    differing = 0
    for table in _reblocked(_batches(file, step), step):
        known.add(_numbers(table["row"]), _one(table["recording_id"]))
        if others is not None:
            differing += _different(table, next(others, None), comparable)
    if others is not None and next(others, None) is not None:
        differing += 1
    problem = f"recordings.csv.zst has other values than recordings.parquet in {differing:,} blocks"
    return [problem] if differing else []


def _recordings(path: Path) -> pq.ParquetFile:
    file = _opened(path / "recordings.parquet")
    _check_types(file.schema_arrow, RECORDING, others=True)
    return file


def _different(table: pa.Table, other: pa.Table | None, names: list[str]) -> bool:
    if other is None or other.num_rows != table.num_rows:
        return True
    return any(not _one(table[name].cast(pa.string())).equals(_one(other[name])) for name in names)


def _hdf5(path: Path, config: RunConfig, step: int) -> Iterator[pa.Table]:
    refused = unreadable(path)
    if refused:
        raise InputRejected(refused)
    with h5py.File(path, "r") as file:
        for problem in layout_problems(file, config):
            raise InputRejected(problem)
        removed = np.sort(file["removed"][:]) if "removed" in file else np.empty(0, np.int32)
        for first in range(0, config.n, step):
            rows = np.arange(first, min(config.n, first + step), dtype=np.int32)
            span, live = slice(first, first + len(rows)), np.ones(len(rows), bool)
            live[removed[slice(*np.searchsorted(removed, (first, span.stop)))] - first] = False
            ids = file["recording_ids"][span][live].tolist()
            texts = [v.decode() if isinstance(v, bytes) else str(v) for v in ids]
            lists = [pa.array(file[name][span][live].ravel()) for name in LISTS]
            stops = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * config.columns)
            yield pa.table(
                [
                    pa.array(rows[live]),
                    pa.array(texts, pa.string()),
                    *(pa.ListArray.from_arrays(stops, values) for values in lists),
                ],
                names=[*RECORDING, *LISTS],
            )


def _parquet(path: Path, rows: int) -> Iterator[pa.Table]:
    file = _opened(path)
    kinds = RECORDING | {name: pa.list_(kind) for name, kind in LISTS.items()}
    found = {field.name: field.type for field in file.schema_arrow}
    if [*found] != [*kinds] or any(not _same(found[name], kinds[name]) for name in kinds):
        raise InputRejected(f"its columns are {file.schema_arrow.names} of other types")
    yield from _batches(file, rows)


def _same(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_list(expected):
        return bool(pa.types.is_list(found) and found.value_type == expected.value_type)
    return bool(found == expected)


def _opened(path: Path) -> pq.ParquetFile:
    # what Arrow reads ahead it keeps until the whole file is read; unbuffered it reads row groups
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES)


def _batches(
    file: pq.ParquetFile, rows: int, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    for batch in file.iter_batches(rows, columns=columns):
        yield pa.Table.from_batches([batch])


def _csv(path: Path, k: int) -> Iterator[pa.Table]:
    """Tables of the CSV form: texts {a,b,c} become lists; float32 is read as float32."""
    for table in _csv_tables(path, [*RECORDING, *LISTS], max(CSV_BLOCK_BYTES, 64 * k)):
        columns = [table["row"], table["recording_id"]]
        for name, kind in LISTS.items():
            texts = _one(table[name])
            if not pc.all(pc.match_substring_regex(texts, r"^\{[-+.0-9e,]*\}$")).as_py():
                raise InputRejected(f"{name} has a value that isn't {{number,number,...}}")
            inner = pc.utf8_slice_codeunits(texts, 1, -1)
            parts = pc.split_pattern(inner, ",")
            values = pc.cast(parts.flatten(), kind)
            columns.append(pa.ListArray.from_arrays(parts.offsets, values))
        yield pa.table([pc.cast(columns[0], pa.int32()), *columns[1:]], names=table.column_names)


def _csv_tables(
    path: Path, names: list[str], block_bytes: int = CSV_BLOCK_BYTES
) -> Iterator[pa.Table]:
    """Blocks of a compressed CSV file with exactly these columns, as text; each holds a line."""
    kinds = dict.fromkeys(names, pa.string())
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        reader = pv.open_csv(
            stream,
            pv.ReadOptions(block_size=block_bytes, use_threads=True),
            pv.ParseOptions(newlines_in_values=True),
            pv.ConvertOptions(
                column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )  # fmt: skip
        if reader.schema.names != names:
            raise InputRejected(f"its columns are {reader.schema.names}, expected {names}")
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _reblocked(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows`, but for the last."""
    held: list[pa.Table] = []
    have = 0
    for table in tables:
        held.append(table)
        have += table.num_rows
        while have >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, have = [whole.slice(rows)], have - rows
    if have:
        yield pa.concat_tables(held)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """Row numbers int32 without gaps."""
    values = _one(column)
    if values.null_count:
        raise InputRejected("the column row has gaps")
    return values.to_numpy()


def _check_types(schema: pa.Schema, kinds: dict[str, pa.DataType], *, others: bool = False) -> None:
    found = {field.name: field.type for field in schema}
    names = [*found][: len(kinds)] if others else [*found]
    if names != [*kinds] or any(found[name] != kind for name, kind in kinds.items()):
        raise InputRejected(f"its columns are {schema.names} of other types")


def _matrix(column: pa.ChunkedArray, k: int, kind: pa.DataType) -> Any:
    return _values(column, k, kind).to_numpy().reshape(-1, k)


def _values(column: pa.ChunkedArray, k: int, kind: pa.DataType) -> pa.Array:
    """All elements of lists of exactly k; none may be null."""
    lists = _one(column)
    if lists.null_count or not pc.all(pc.equal(pc.list_value_length(lists), k)).as_py():
        raise InputRejected(f"expected lists of {k} throughout")
    values = lists.flatten()
    if values.null_count or values.type != kind:
        raise InputRejected(f"expected lists of {kind} without gaps, got {values.type}")
    return values


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
