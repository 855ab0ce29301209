"""What a dump says of its recordings: which rows have one, and the ids there, in bounded memory.

Owns the files that hold them while a dump is checked: nameless, in the system's folder for
temporary ones, mapped. Shares no code with the writers, and believes no rows.
"""

import mmap
from contextlib import ExitStack
from itertools import pairwise
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearfield.errors import InputRejected

MOST_MAPPED = 32 << 20
"""Bytes of the files that are mapped at once, if ids are about equally long."""
ROW_BYTES, STOP_BYTES = 4, 8


class KnownIds:
    """Recordings of rows within 0..n-1, as they are added; afterwards `at` any rows.

    A context: its files are gone at the end. Memory: a bit per row, and the pages of some lookups.
    Disk: 12 bytes and the id per recording.
    """

    def __init__(self, n: int) -> None:
        self.n, self.count, self._last, self._end = n, 0, -1, 0
        self._there = np.zeros(-(-n // 8), np.uint8)
        with ExitStack() as stack:
            files = [stack.enter_context(TemporaryFile()) for _ in range(3)]
            self._opened = stack.pop_all()
        self._places, self._stops, self._text = files
        self._places.truncate(ROW_BYTES * n)
        self._stops.write(bytes(STOP_BYTES))
        self._maps: list[mmap.mmap] = []
        self._ids: pa.LargeStringArray | None = None

    def __enter__(self) -> "KnownIds":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, rows: NDArray[np.int32], ids: pa.StringArray) -> None:
        """The next recordings: rows int32 [m] ascending, also after those before, and ids [m]."""
        if not len(rows):
            return
        if ids.null_count or (np.diff(rows, prepend=self._last) <= 0).any() or rows[-1] >= self.n:
            raise InputRejected(
                f"expected ids throughout, and rows that ascend within 0..{self.n - 1:,}"
            )
        np.bitwise_or.at(self._there, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
        # 0 stays where there is no recording
        places = np.arange(self.count + 1, self.count + 1 + len(rows), dtype=np.int32)
        for piece in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) > 1) + 1):
            self._places.seek(ROW_BYTES * int(rows[piece[0]]))
            self._places.write(places[piece].tobytes())
        whole = ids.cast(pa.large_string())
        _, stops, text = whole.buffers()
        ends = np.frombuffer(stops, np.int64)[whole.offset :][: len(whole) + 1]
        self._text.write(memoryview(text or b"")[ends[0] : ends[-1]])
        self._stops.write((ends[1:] - ends[0] + self._end).tobytes())
        self._end += int(ends[-1] - ends[0])
        self._last, self.count = int(rows[-1]), self.count + len(rows)

    def removed(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of the rows, of any shape within 0..n-1, have no recording."""
        if self.count == self.n:
            return np.broadcast_to(np.False_, rows.shape)
        return (self._there[rows >> 3] >> (rows & 7) & 1) == 0

    def at(self, rows: NDArray[np.int32]) -> pa.StringArray:
        """Ids at `rows` in any order and shape. Raises `InputRejected` where there is none."""
        flat = rows.ravel()
        if len(flat) and (flat.min() < 0 or flat.max() >= self.n):
            raise InputRejected("it names rows outside the matrix")
        if self.removed(flat).any():
            raise InputRejected("it names rows that have no recording")
        # in their order: each page is needed once, and those of a stretch are let go together
        asked, inverse = np.unique(flat, return_inverse=True)
        if self._ids is None:
            self._ids = self._read()
        stretch = max(1, MOST_MAPPED * self.n // sum(map(len, self._maps)))
        cuts = np.searchsorted(asked, np.arange(0, self.n + stretch, stretch))
        parts = [self._looked_up(asked[first:stop]) for first, stop in pairwise(cuts.tolist())]
        return pa.concat_arrays(parts).take(pa.array(inverse))

    def _read(self) -> pa.LargeStringArray:
        self._maps = [_mapped(file) for file in (self._places, self._stops, self._text)]
        stops, text = map(pa.py_buffer, self._maps[1:])
        return pa.LargeStringArray.from_buffers(self.count, stops, text)

    def _looked_up(self, rows: NDArray[np.int32]) -> pa.StringArray:
        places = np.frombuffer(self._maps[0], np.int32)[rows] - 1
        assert self._ids is not None  # noqa: S101  (for the type checker)
        found = self._ids.take(pa.array(places)).cast(pa.string())
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)
        return found


def _mapped(file: IO[bytes]) -> mmap.mmap:
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
