"""A column of lists of one length as a Parquet column: levels that are the same for all, numbers.

Arrow works the levels out value by value, which takes longer than compressing the numbers. Owns the
page (https://parquet.apache.org/docs/file-format/data-pages/), one for a column of a row group.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dumps.dump.row_groups import Chunk
from dumps.dump.thrift import BINARY, INT32, INT64, LIST, STRUCT, Struct, Value, written
from nearfield.space import Float32s, Int32s

TYPES = {"int32": 1, "float32": 4}
RLE, BYTE_STREAM_SPLIT = 3, 9
ZSTD = 6
DATA_PAGE = 0


class ListEncoder:
    """Encodes lists of at most `places` numbers, compressed by zstd at `level`; one thread's."""

    def __init__(self, places: int, level: int) -> None:
        self._codec = pa.Codec("zstd", level)
        self._words = np.empty(places, np.uint32)
        self._shape: tuple[int, ...] = ()
        self._body = np.empty(0, np.uint8)

    def column(self, name: str, values: Int32s | Float32s) -> Chunk:
        """Lists [m, k], k >= 1, of the column `name`, none null, their numbers split by bytes.

        Cost: one pass to split, and the compression.
        """
        body = self._split(values)
        packed = self._codec.compress(body)
        header = written(_page_header(values.size, len(body), len(packed)))
        facts = {
            1: _number(TYPES[values.dtype.name]),
            2: Value(LIST, (INT32, [RLE, BYTE_STREAM_SPLIT])),
            3: Value(LIST, (BINARY, [name.encode(), b"list", b"element"])),
            4: _number(ZSTD),
            5: Value(INT64, values.size),
            6: Value(INT64, len(header) + len(body)),
            7: Value(INT64, len(header) + len(packed)),
            9: Value(INT64, 0),
        }
        return Chunk((header, packed), facts)

    def _split(self, values: Int32s | Float32s) -> NDArray[np.uint8]:
        """Levels, then the first byte of all numbers, the second of all, ...

        Alike bytes side by side compress better, and zstd passes quickly over those that don't.
        """
        levels = _levels(*values.shape)
        if values.shape != self._shape:
            self._shape = values.shape
            self._body = np.empty(len(levels) + values.nbytes, np.uint8)
            self._body[: len(levels)] = levels
        planes = self._body[len(levels) :].reshape(values.itemsize, values.size)
        words = np.ascontiguousarray(values).reshape(-1).view("<u4")
        np.copyto(planes[0], words, casting="unsafe")
        for place in range(1, values.itemsize):
            shifted = np.right_shift(words, 8 * place, out=self._words[: values.size])
            np.copyto(planes[place], shifted, casting="unsafe")
        return self._body


@lru_cache(4)
def _levels(m: int, k: int) -> NDArray[np.uint8]:
    """Repetition: 0 where a list begins, else 1, in bits. Definition: 1 throughout, as one run."""
    continues = np.ones((m, k), np.uint8)
    continues[:, 0] = 0
    bits = np.packbits(continues, bitorder="little").tobytes()
    repetition = _varint(len(bits) << 1 | 1) + bits
    definition = _varint(m * k << 1) + b"\1"
    parts = (len(each).to_bytes(4, "little") + each for each in (repetition, definition))
    return np.frombuffer(b"".join(parts), np.uint8)


def _page_header(count: int, whole_bytes: int, packed_bytes: int) -> Struct:
    about = {1: _number(count), 2: _number(BYTE_STREAM_SPLIT), 3: _number(RLE), 4: _number(RLE)}
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
