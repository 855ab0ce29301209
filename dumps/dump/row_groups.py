"""One Parquet file out of row groups that were encoded apart, each as a small file of its own.

Arrow's writer keeps one core busy; row groups that several cores have encoded need only be put one
after the other, with a footer that says where they are now. Owns that footer, by the rules of
Parquet (https://github.com/apache/parquet-format) and of the compact protocol of Thrift that it is
written in. Refuses to know what the columns hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b"PAR1"
TAIL_BYTES = 8
"""Behind the footer: its length, and the mark."""

BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 3, 7, 8, 9, 10, 11, 12
TRUE, FALSE, INT16, INT64 = 1, 2, 4, 6

FILE_ROWS, FILE_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_OFFSET, GROUP_ORDINAL = 1, 5, 7
COLUMN_OFFSET, COLUMN_FACTS = 2, 3
PAGE_INDEXES = range(4, 8)
"""Fields of a column: as a Bloom filter, they may lie behind the row groups, and aren't kept."""
PAGE_OFFSETS = (9, 10, 11)
"""Fields of a column's facts: where its data, index and dictionary pages begin."""
BLOOM_FILTER = (14, 15)


class Value(NamedTuple):
    """A value and its type. A struct is a dict of them by field; a list (type of all, values)."""

    kind: int
    value: Any


Struct = dict[int, Value]


@contextmanager
def joined_file(path: Path) -> Iterator[Callable[[memoryview], None]]:
    """Yield a function that appends the row groups of Parquet files, which must be of one schema.

    The file at `path` has a footer, and so can be read, once the block has succeeded.
    """
    footers: list[Struct] = []
    groups: list[Struct] = []
    with path.open("wb") as stream:
        stream.write(MAGIC)

        def append(part: memoryview) -> None:
            end = len(part) - TAIL_BYTES - int.from_bytes(part[-TAIL_BYTES:-4], "little")
            footer = _Reader(part, end).struct()
            for group in footer[FILE_GROUPS].value[1]:
                _move(group, stream.tell() - len(MAGIC), len(groups))
                groups.append(group)
            footers.append({FILE_ROWS: footer[FILE_ROWS]} if footers else footer)
            stream.write(part[len(MAGIC) : end])

        yield append
        rows = sum(footer[FILE_ROWS].value for footer in footers)
        changed = {FILE_ROWS: Value(INT64, rows), FILE_GROUPS: Value(LIST, (STRUCT, groups))}
        whole = bytearray()
        _write_struct(whole, footers[0] | changed)
        stream.write(bytes(whole) + len(whole).to_bytes(4, "little") + MAGIC)


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
        # 0: unused, as the format asks of writers by now
        if field in struct and struct[field].value:
            struct[field] = Value(INT64, struct[field].value + by)


class _Reader:
    """Values of the compact protocol, one after the other."""

    def __init__(self, data: memoryview, place: int) -> None:
        self.data = data
        self.place = place

    def struct(self) -> Struct:
        found: Struct = {}
        field = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            field = field + step if step else self._signed()
            # a flag that is a field has its value in its type
            found[field] = Value(kind, None if kind in (TRUE, FALSE) else self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._unsigned()
            return head & 15, [self._value(head & 15) for _ in range(size)]
        if kind == BINARY:
            return self._bytes(self._unsigned())
        if kind == DOUBLE:
            return self._bytes(8)
        if kind in (TRUE, FALSE, BYTE):
            return self._byte()
        if kind == MAP:
            raise ValueError("a Parquet footer has no maps")
        return self._signed()

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _bytes(self, size: int) -> bytes:
        self.place += size
        return bytes(self.data[self.place - size : self.place])

    def _unsigned(self) -> int:
        found = shift = 0
        while True:
            part = self._byte()
            found |= (part & 127) << shift
            shift += 7
            if part < 128:
                return found

    def _signed(self) -> int:
        folded = self._unsigned()
        return folded >> 1 ^ -(folded & 1)


def _write_struct(out: bytearray, struct: Struct) -> None:
    last = 0
    for field, (kind, value) in sorted(struct.items()):
        if 0 < field - last < 16:
            out.append((field - last) << 4 | kind)
        else:
            out.append(kind)
            _write_unsigned(out, field << 1)
        last = field
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind == STRUCT:
        _write_struct(out, value)
    elif kind in (LIST, SET):
        element, values = value
        out.append(min(len(values), 15) << 4 | element)
        if len(values) > 14:
            _write_unsigned(out, len(values))
        for each in values:
            _write_value(out, element, each)
    elif kind == BINARY:
        _write_unsigned(out, len(value))
        out += value
    elif kind == DOUBLE:
        out += value
    elif kind in (TRUE, FALSE, BYTE):
        out.append(value)
    else:
        _write_unsigned(out, value << 1 ^ value >> 63)


def _write_unsigned(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
