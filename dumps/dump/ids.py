"""All recording ids of a matrix as text, in files that are mapped: any of them at once, in bounded
memory.

Owns the files, which have no name and vanish with the process, and letting go of their pages: the
system would take them back when it needs them, but counts them until then.
"""

import mmap
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa

from nearfield.space import Int32s

MOST_MAPPED_BYTES = 32 << 20
"""What reads may have touched of the text before its pages are let go."""


class MappedIds:
    """Ids of `n` rows as they come in `batches`, in files on the disk of `folder`.

    Several threads may read.
    """

    def __init__(self, folder: Path, batches: Iterable[pa.StringArray]) -> None:
        self.n, end = 0, 0
        with TemporaryFile(dir=folder) as text, TemporaryFile(dir=folder) as stops:
            stops.write(np.zeros(1, "<i8").tobytes())
            for batch in batches:
                _, own, characters = batch.buffers()
                ends = np.frombuffer(own, np.int32)[batch.offset :][: len(batch) + 1]
                text.write(memoryview(characters or b"")[ends[0] : ends[-1]])
                stops.write((ends[1:] + np.int64(end - ends[0])).astype("<i8").tobytes())
                end += int(ends[-1] - ends[0])
                self.n += len(batch)
            self._maps = [_mapped(stops), _mapped(text)]
        buffers = [pa.py_buffer(each) for each in self._maps]
        self._ids = pa.LargeStringArray.from_buffers(self.n, *buffers)
        self._touched = 0

    def span(self, rows: slice) -> pa.StringArray:
        """Ids of consecutive rows."""
        found = self._ids.slice(rows.start, rows.stop - rows.start).cast(pa.string())
        self._touch(found.nbytes)
        return found

    def at(self, rows: Int32s) -> pa.StringArray:
        """Ids of any rows, int32 [m]. Cost: O(m log m).

        Looked up in their order, so that pages which lie together are let go together: a lookup
        brings its neighbours in as well, and one by one they would soon be the whole file.
        """
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        whole = sum(map(len, self._maps))
        stretch = max(1, MOST_MAPPED_BYTES * self.n // whole)
        cuts = np.searchsorted(ascending, np.arange(0, self.n + stretch, stretch))
        parts = [pa.array([], pa.string())]
        for first, stop in pairwise(cuts.tolist()):
            if first < stop:
                parts.append(self._ids.take(pa.array(ascending[first:stop])).cast(pa.string()))
                self._touch(min(MOST_MAPPED_BYTES, whole))
        places = np.empty(len(rows), np.int64)
        places[order] = np.arange(len(rows))
        return pa.concat_arrays(parts).take(pa.array(places))

    def _touch(self, amount: int) -> None:
        self._touched += amount
        if self._touched >= MOST_MAPPED_BYTES:
            self._touched = 0
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)


def _mapped(stream: IO[bytes]) -> mmap.mmap:
    stream.flush()
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
