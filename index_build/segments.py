"""Intermediate files between the stages of a build: named arrays in numbered segments.

Owns their format (docs/formats.md). A reader takes one segment and touches nothing else of the
file; every array carries a checksum. The index stands at the end of the same file, so one rename
makes it whole, and a repeated task replaces it in one step. Not fsynced: what a power cut leaves
behind fails its checksums and is made again. Refuses to know what the arrays mean.
"""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path
from nearfield.locations import Location, local_file
from nearfield.objects import ObjectPath
from nearfield.traffic import note_read, note_written

MAGIC = b"NFSEGS01"
TAIL = 16
"""Bytes behind the index: its length and checksum, 4 bytes each, and the magic."""
INDEX_BYTES = 64 << 10
"""Read from the end at once: most indexes are smaller."""
AHEAD_BYTES = 1 << 20
"""Read beyond an array of an object: the next ones of its segment, without asking again."""

Arrays = Mapping[str, NDArray[Any]]


class _Ahead:
    """The bytes of an object behind those that were read last: arrays are asked for in order."""

    def __init__(self) -> None:
        self.first, self.content = 0, b""

    def read(self, path: ObjectPath, first: int, size: int, *, ahead: int) -> bytes:
        """`size` bytes from `first` on, and so many more, for the next call, if it asks at all."""
        start = first - self.first
        if start < 0 or start + size > len(self.content):
            self.content, start = path.read_range(first, size + ahead), 0
        found = self.content[start : start + size]
        self.first, self.content = first + size, self.content[start + size :]
        return found


@dataclass(frozen=True)
class Segments:
    """The index of one file. entries: (segment, array name) to dtype, shape, offset, checksum."""

    path: Location
    fingerprint: str
    facts: Mapping[str, Any]
    entries: Mapping[tuple[int, str], tuple[str, list[int], int, int]]
    _ahead: _Ahead = field(default_factory=_Ahead, compare=False, repr=False)

    def read(
        self, segment: int, name: str, *, into: NDArray[np.uint8] | None = None
    ) -> NDArray[Any]:
        """One array, checked. Raises `DamagedArtefact`; `KeyError` for one that isn't there.

        into: memory for it, where there is enough: that of an array that isn't needed any more.
        """
        dtype, shape, offset, checksum = self.entries[segment, name]
        count = int(np.prod(shape, dtype=np.int64))
        if isinstance(self.path, Path):
            size = count * np.dtype(dtype).itemsize
            if into is None or into.nbytes < size:
                found = np.fromfile(self.path, dtype, count, offset=offset)
            else:
                with self.path.open("rb", buffering=0) as stream:
                    stream.seek(offset)
                    size = stream.readinto(into[:size].data)
                found = into[: size - size % np.dtype(dtype).itemsize].view(dtype)
        else:
            size = count * np.dtype(dtype).itemsize
            ahead = min(AHEAD_BYTES, self._ends[segment] - offset - size)
            content = self._ahead.read(self.path, offset, size, ahead=ahead)
            whole = bytearray(content) if len(content) == size else bytearray()
            found = np.frombuffer(whole, dtype) if whole else np.empty(0, dtype)
        if found.size != count or zlib.crc32(found.data) != checksum:
            raise _damaged(self.path, f"{name} of segment {segment} fails its checksum")
        note_read(found.nbytes)
        return found.reshape(shape)

    @cached_property
    def _ends(self) -> Mapping[int, int]:
        """Where the last array of each segment ends."""
        ends: dict[int, int] = {}
        for (segment, _), (dtype, shape, offset, _) in self.entries.items():
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            ends[segment] = max(ends.get(segment, 0), offset + size)
        return ends


def write_segments(
    path: Location,
    segments: Iterable[tuple[int, Arrays]],
    *,
    fingerprint: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the segments in the order in which they come, then the index. Raises `DiskFull`."""
    with atomic_path(path, durable=False) as temporary, temporary.open("wb") as stream:
        entries = [
            [segment, name, *_written(stream, array)]
            for segment, arrays in segments
            for name, array in arrays.items()
        ]
        index = {"fingerprint": fingerprint, "facts": dict(facts or {}), "arrays": entries}
        content = json.dumps(index).encode()
        sizes = np.array([len(content), zlib.crc32(content)], "<u4")
        stream.write(content + sizes.tobytes() + MAGIC)
        note_written(stream.tell())


def open_segments(path: Location) -> Segments:
    """Read the index. Raises `MissingFile` or `DamagedArtefact`."""
    try:
        end = _end_of(path, INDEX_BYTES)
        length, checksum = (int(value) for value in np.frombuffer(end[-TAIL:-8], "<u4"))
        if length + TAIL > len(end):
            end = _end_of(path, length + TAIL)
    except FileNotFoundError as error:
        raise MissingFile(f"expected {path} of an earlier stage: run the build again") from error
    except ValueError as error:
        raise _damaged(path, "it is cut short") from error
    content = end[-TAIL - length : -TAIL]
    if end[-8:] != MAGIC or zlib.crc32(content) != checksum:
        raise _damaged(path, "its index can't be read")
    note_read(length + TAIL)
    index = json.loads(content)
    entries = {(entry[0], entry[1]): tuple(entry[2:]) for entry in index["arrays"]}
    return Segments(path, index["fingerprint"], index["facts"], entries)


def segments_finished(path: Location, *, fingerprint: str) -> bool:
    """Whether the file is there, of that fingerprint, with every array whole. Reads all of it."""
    try:
        if open_segments(path).fingerprint != fingerprint:
            return False
        with local_file(path) as file:
            found = open_segments(file)
            for segment, name in found.entries:
                found.read(segment, name)
    except (FileNotFoundError, DamagedArtefact):
        return False
    return True


def _end_of(path: Location, size: int) -> bytes:
    """The last bytes of a file, all of it if it is shorter."""
    if not isinstance(path, Path):
        whole = path.stat().st_size
        return path.read_range(max(0, whole - size), min(size, whole))
    with path.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
        return stream.read(size)


def _written(stream: BinaryIO, array: NDArray[Any]) -> tuple[str, list[int], int, int]:
    data, offset = np.ascontiguousarray(array), stream.tell()
    view = data.reshape(-1).view(np.uint8).data
    stream.write(view)
    return data.dtype.str, list(data.shape), offset, zlib.crc32(view)


def _damaged(path: Location, fault: str) -> DamagedArtefact:
    return DamagedArtefact(f"{path}: {fault}. Run the same command again, it is made anew")
