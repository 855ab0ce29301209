"""One Parquet file out of row groups that were encoded apart, on several cores.

Arrow's writer keeps one core busy; row groups that were encoded apart need only be put one after
the other, with a footer that says where they are now (https://github.com/apache/parquet-format).
Refuses to know what the columns hold. list_pages.py encodes the columns that Arrow is slow at,
thrift.py the protocol of the footer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dumps.dump.thrift import INT16, INT64, LIST, STRUCT, Reader, Struct, Value, written

MAGIC = b"PAR1"
TAIL_BYTES = 8
"""Behind the footer: its length, and the mark."""

FILE_ROWS, FILE_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_BYTES, GROUP_ROWS, GROUP_OFFSET = 1, 2, 3, 5
GROUP_COMPRESSED, GROUP_ORDINAL = 6, 7
COLUMN_OFFSET, COLUMN_FACTS = 2, 3
PAGE_INDEXES = range(4, 8)
"""Fields of a column: as a Bloom filter, they may lie behind the row groups, and aren't kept."""
FACTS_BYTES, FACTS_COMPRESSED = 6, 7
PAGE_OFFSETS = (9, 10, 11)
"""Fields of a column's facts: where its data, index and dictionary pages begin."""
BLOOM_FILTER = (14, 15)


class Chunk(NamedTuple):
    """One column of a row group: its pages, and its facts with offsets from its first byte."""

    pages: Sequence[bytes | pa.Buffer]
    facts: Struct


Append = Callable[[memoryview, Sequence[Chunk]], int]


@contextmanager
def joined_file(path: Path, schema: pa.Schema) -> Iterator[Append]:
    """Yield a function that appends row groups: a Parquet file of them, and further columns of it.

    It returns the bytes that it wrote. The file has the first columns of `schema`; the chunks,
    where there are some (then it has one row group), are the others, a chunk for each. The file at
    `path` has a footer, and so can be read, once the block has succeeded.
    """
    groups: list[bytes] = []
    rows = 0
    with path.open("wb") as stream:
        stream.write(MAGIC)

        def append(part: memoryview, chunks: Sequence[Chunk] = ()) -> int:
            nonlocal rows
            end, footer = _footer(part)
            start = stream.tell()
            stream.write(part[len(MAGIC) : end])
            added: list[Struct] = footer[FILE_GROUPS].value[1]
            for number, group in enumerate(added, len(groups)):
                _move(group, start - len(MAGIC), number)
                rows += group[GROUP_ROWS].value
            for chunk in chunks:
                _add(added[-1], chunk.facts, stream.tell())
                stream.writelines(chunk.pages)
            # as bytes they take a twentieth of the memory, and there is one for every 4 MiB
            groups.extend(map(written, added))
            return stream.tell() - start

        yield append
        changed = {FILE_ROWS: Value(INT64, rows), FILE_GROUPS: Value(LIST, (STRUCT, groups))}
        whole = written(_empty(schema) | changed)
        stream.write(whole + len(whole).to_bytes(4, "little") + MAGIC)


def _footer(part: memoryview) -> tuple[int, Struct]:
    """Where the footer of a file begins, and what it says."""
    begin = len(part) - TAIL_BYTES - int.from_bytes(part[-TAIL_BYTES:-4], "little")
    return begin, Reader(part, begin).struct()


def _empty(schema: pa.Schema) -> Struct:
    """The footer of a file without rows: schema, and who wrote it."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    return _footer(memoryview(sink.getvalue()).cast("B"))[1]


def _add(group: Struct, facts: Struct, place: int) -> None:
    """Enter a further column of a row group, whose first byte is at `place`."""
    _shift(facts, PAGE_OFFSETS, place)
    column = {COLUMN_OFFSET: Value(INT64, 0), COLUMN_FACTS: Value(STRUCT, facts)}
    group[GROUP_COLUMNS].value[1].append(column)
    for field, of_facts in ((GROUP_BYTES, FACTS_BYTES), (GROUP_COMPRESSED, FACTS_COMPRESSED)):
        group[field] = Value(INT64, group[field].value + facts[of_facts].value)


def _move(group: Struct, by: int, ordinal: int) -> None:
    """Say where a row group is after it was moved by so many bytes, and which one it is now."""
    _shift(group, (GROUP_OFFSET,), by)
    if GROUP_ORDINAL in group:
        group[GROUP_ORDINAL] = Value(INT16, ordinal)
    for column in group[GROUP_COLUMNS].value[1]:
        facts = column[COLUMN_FACTS].value
        for struct, fields in ((column, PAGE_INDEXES), (facts, BLOOM_FILTER)):
            for field in fields:
                struct.pop(field, None)
        _shift(column, (COLUMN_OFFSET,), by)
        _shift(facts, PAGE_OFFSETS, by)


def _shift(struct: Struct, fields: tuple[int, ...], by: int) -> None:
    for field in fields:
        # in a column 0 means unused, as the format asks of writers by now
        if field in struct and (field in PAGE_OFFSETS or struct[field].value):
            struct[field] = Value(INT64, struct[field].value + by)
