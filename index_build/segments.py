"""Intermediate files between the stages of a build: named arrays in numbered segments.

Owns their format (docs/formats.md). A reader takes one segment and touches nothing else of the
file; every array carries a checksum. The index stands at the end of the same file, so one rename
makes it whole, and a repeated task replaces it in one step. Not fsynced: what a power cut leaves
behind fails its checksums and is made again. Refuses to know what the arrays mean.
"""

import json
import os
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import DamagedArtefact, MissingFile, disk_errors
from nearfield.files import TEMPORARY_MARK
from nearfield.traffic import note_read, note_written

MAGIC = b"NFSEGS01"
TAIL = 16
"""Bytes behind the index: its length and checksum, 4 bytes each, and the magic."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Segments:
    """The index of one file. entries: (segment, array name) to dtype, shape, offset, checksum."""

    path: Path
    fingerprint: str
    facts: Mapping[str, Any]
    entries: Mapping[tuple[int, str], tuple[str, list[int], int, int]]

    def read(self, segment: int, name: str) -> NDArray[Any]:
        """One array, checked. Raises `DamagedArtefact`; `KeyError` for one that isn't there."""
        dtype, shape, offset, checksum = self.entries[segment, name]
        count = int(np.prod(shape, dtype=np.int64))
        found = np.fromfile(self.path, dtype, count, offset=offset)
        if found.size != count or zlib.crc32(found.data) != checksum:
            raise _damaged(self.path, f"{name} of segment {segment} fails its checksum")
        note_read(found.nbytes)
        return found.reshape(shape)


def write_segments(
    path: Path,
    segments: Iterable[tuple[int, Arrays]],
    *,
    fingerprint: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the segments in the order in which they come, then the index. Raises `DiskFull`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}")
    try:
        with disk_errors(path):
            with temporary.open("wb") as stream:
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
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_segments(path: Path) -> Segments:
    """Read the index. Raises `MissingFile` or `DamagedArtefact`."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL))
            tail = stream.read(TAIL)
            length, checksum = (int(value) for value in np.frombuffer(tail[:8], "<u4"))
            stream.seek(max(0, size - TAIL - length))
            content = stream.read(length)
    except FileNotFoundError as error:
        raise MissingFile(f"expected {path} of an earlier stage: run the build again") from error
    except ValueError as error:
        raise _damaged(path, "it is cut short") from error
    if tail[8:] != MAGIC or zlib.crc32(content) != checksum:
        raise _damaged(path, "its index can't be read")
    note_read(length + TAIL)
    index = json.loads(content)
    entries = {(entry[0], entry[1]): tuple(entry[2:]) for entry in index["arrays"]}
    return Segments(path, index["fingerprint"], index["facts"], entries)


def segments_finished(path: Path, *, fingerprint: str) -> bool:
    """Whether the file is there, of that fingerprint, with every array whole. Reads all of it."""
    try:
        found = open_segments(path)
        if found.fingerprint != fingerprint:
            return False
        for segment, name in found.entries:
            found.read(segment, name)
    except (MissingFile, DamagedArtefact):
        return False
    return True


def _written(stream: BinaryIO, array: NDArray[Any]) -> tuple[str, list[int], int, int]:
    data, offset = np.ascontiguousarray(array), stream.tell()
    view = data.reshape(-1).view(np.uint8).data
    stream.write(view)
    return data.dtype.str, list(data.shape), offset, zlib.crc32(view)


def _damaged(path: Path, fault: str) -> DamagedArtefact:
    return DamagedArtefact(f"{path}: {fault}. Run the same command again, it is made anew")
