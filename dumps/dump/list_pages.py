"""A column of lists of one length as a Parquet column: levels that are the same for all, numbers.

Arrow works the levels out value by value, which takes longer than compressing the numbers. Owns the
page (https://parquet.apache.org/docs/file-format/data-pages/), one for a column of a row group.
"""

from typing import Any

import numpy as np
import zstandard

from dumps.dump.row_groups import Chunk
from dumps.dump.thrift import BINARY, INT32, INT64, LIST, STRUCT, Struct, Value, written
from nearfield.space import Float32s, Int32s

TYPES = {"int32": 1, "float32": 4}
PLAIN, RLE, BYTE_STREAM_SPLIT = 0, 3, 9
ZSTD = 6
DATA_PAGE = 0


def list_column(name: str, values: Int32s | Float32s, level: int) -> Chunk:
    """Lists [m, k], k >= 1, of the column `name`, none null: int32 plain, float32 split by bytes.

    level: of zstd. Cost: one pass to split floats, and the compression.
    """
    encoding = BYTE_STREAM_SPLIT if values.dtype == np.float32 else PLAIN
    body = b"".join([_levels(*values.shape), _numbers(values, encoding)])
    packed = zstandard.ZstdCompressor(level).compress(body)
    header = written(_page_header(values.size, encoding, len(body), len(packed)))
    facts = {
        1: _number(TYPES[values.dtype.name]),
        2: Value(LIST, (INT32, [RLE, encoding])),
        3: Value(LIST, (BINARY, [name.encode(), b"list", b"element"])),
        4: _number(ZSTD),
        5: Value(INT64, values.size),
        6: Value(INT64, len(header) + len(body)),
        7: Value(INT64, len(header) + len(packed)),
        9: Value(INT64, 0),
    }
    return Chunk((header, packed), facts)


def _numbers(values: Int32s | Float32s, encoding: int) -> Any:
    flat = np.ascontiguousarray(values).reshape(-1)
    if encoding == PLAIN:
        return flat.data.cast("B")
    # the first byte of all, the second of all, ...: alike bytes side by side compress better
    split = np.empty((flat.itemsize, flat.size), np.uint8)
    np.copyto(split, flat.view(np.uint8).reshape(-1, flat.itemsize).T)
    return split.data.cast("B")


def _levels(m: int, k: int) -> bytes:
    """Repetition: 0 where a list begins, else 1, in bits. Definition: 1 throughout, as one run."""
    continues = np.ones((m, k), np.uint8)
    continues[:, 0] = 0
    bits = np.packbits(continues, bitorder="little").tobytes()
    repetition = _varint(len(bits) << 1 | 1) + bits
    definition = _varint(m * k << 1) + b"\1"
    return b"".join(len(each).to_bytes(4, "little") + each for each in (repetition, definition))


def _page_header(count: int, encoding: int, whole_bytes: int, packed_bytes: int) -> Struct:
    about = {1: _number(count), 2: _number(encoding), 3: _number(RLE), 4: _number(RLE)}
    sizes = {2: _number(whole_bytes), 3: _number(packed_bytes)}
    return {1: _number(DATA_PAGE), **sizes, 5: Value(STRUCT, about)}


def _number(value: int) -> Value:
    return Value(INT32, value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
