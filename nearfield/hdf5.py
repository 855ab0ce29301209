"""HDF5 files as all of ours are written: room first, then checksummed chunks of whole rows.

Owns the recipe and the translation of HDF5's errors; refuses to know what is stored.
"""

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from nearfield.errors import DiskFull

CHUNK_ROWS = 1024
LIBVER = ("v110", "v110")
"""Refused when a writer was killed, like "latest", yet readable since HDF5 1.10."""
METADATA_BYTES = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the quota, or the largest file that is allowed (ulimit -f) is too small."""
CANT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@contextmanager
def new_file(path: Path, data_bytes: int) -> Iterator[h5py.File]:
    """A new HDF5 file at `path` with room on its disk for `data_bytes`, closed at the end.

    The room is taken before anything is written, since HDF5 can't get over a full disk: it fails
    while closing, again in every destructor, and can take the process down. Raises `DiskFull`.
    """
    needed = data_bytes + data_bytes // 50 + METADATA_BYTES
    _take_room(path, needed)
    try:
        # opening truncates the file, so the room is taken again, and held, once it is open
        with h5py.File(path, "w", libver=LIBVER, track_order=True) as file:
            _take_room(path, needed)
            yield file
            file.flush()
            used = file.id.get_filesize()
        # HDF5 doesn't know of the room; should it need a byte more, no reader will open the file
        os.truncate(path, used)
    except (OSError, RuntimeError) as error:
        if _free_bytes(path.parent) < METADATA_BYTES:
            raise _full(path, needed) from error
        raise


def new_dataset(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: str, fill: float
) -> h5py.Dataset:
    """A dataset of `shape` [rows, ...] in chunks of whole rows with fletcher32 and a fill value."""
    chunk_rows = min(shape[0], CHUNK_ROWS)
    chunks = (chunk_rows, *shape[1:]) if chunk_rows and all(shape) else None
    return file.create_dataset(
        name, shape, dtype, chunks=chunks, fletcher32=chunks is not None, fillvalue=fill
    )


def stored_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """What a dataset of `new_dataset` takes on disk: whole chunks."""
    rows = -(-shape[0] // CHUNK_ROWS) * CHUNK_ROWS if shape[0] > CHUNK_ROWS else shape[0]
    return rows * math.prod(shape[1:]) * itemsize


def _take_room(path: Path, needed: int) -> None:
    """Raises `DiskFull` where there is no room; other faults, such as missing rights, as they are.

    Where the file system can't reserve room, a full disk shows while writing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, needed)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _full(path, needed) from error
        if error.errno not in CANT_RESERVE:
            error.filename = str(path)
            raise
    finally:
        os.close(descriptor)


def _full(path: Path, needed: int) -> DiskFull:
    return DiskFull(
        f"no room left for {path}: it takes {needed:,} bytes. "
        "Free space there, then run the same command again to resume"
    )


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
