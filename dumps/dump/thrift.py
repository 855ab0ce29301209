"""Thrift's compact protocol, in which Parquet says where everything is.

Reads a struct as a dict by field and writes such a dict
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). Refuses to know
what the fields mean; maps, which Parquet doesn't use, are an error.
"""

from typing import Any, NamedTuple

TRUE, FALSE, BYTE, INT16, INT32, INT64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


class Value(NamedTuple):
    """A value and its type. A struct is a dict of them by field, or its bytes where it is only
    written; a list (type of all, values)."""

    kind: int
    value: Any


Struct = dict[int, Value]


class Reader:
    """Values in `data` from `place` on, one after the other."""

    def __init__(self, data: memoryview, place: int) -> None:
        self.data = data
        self.place = place

    def struct(self) -> Struct:
        """The struct that begins here."""
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


def written(struct: Struct) -> bytes:
    """The bytes of a struct."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


def _write_struct(out: bytearray, struct: Struct | bytes) -> None:
    if isinstance(struct, bytes):
        out += struct
        return
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
