"""HDF5 files as all of ours are written: room first, then checksummed chunks of whole rows.

Owns the recipe, a fast way to read such chunks, and the translation of HDF5's errors; refuses to
know what is stored.
"""

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nearfield.errors import DamagedArtefact, DiskFull

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


class RowReader:
    """Rows [first, stop) of a dataset [n, k], straight from where the file has its chunks.

    HDF5 reads on one core at a time, whoever asks, and checks each chunk; this reads at the speed
    of the page cache in as many threads as ask. For files whose checksum was compared before.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._places = _chunk_places(dataset)
        self._file = os.open(dataset.file.filename, os.O_RDONLY) if self._places else None

    def __len__(self) -> int:
        return int(self._dataset.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """The rows of a slice without a step, as of the dataset."""
        first, stop, _ = rows.indices(len(self))
        return self.read(first, max(first, stop))

    def _new(self, count: int) -> NDArray[Any]:
        return np.empty((count, *self._dataset.shape[1:]), self._dataset.dtype)

    def close(self) -> None:
        """Let go of the file; reading is an error afterwards."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._places = None, []

    def read(self, first: int, stop: int, into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows first to stop - 1, stop <= n, in the dataset's dtype.

        The array is new, or the first rows of `into` [m >= stop - first, k]: fresh memory costs
        more than the reading.
        """
        rows = self._new(stop - first) if into is None else into[: stop - first]
        if self._file is None:
            self._dataset.read_direct(rows, np.s_[first:stop])
            return rows
        height, width = self._dataset.chunks
        step = rows.itemsize * width
        row = first
        while row < stop:
            chunk, inside = divmod(row, height)
            end = min(stop, row + height - inside)
            part = rows[row - first : end - first]
            if (
                os.preadv(self._file, [part.data], self._places[chunk] + inside * step)
                < part.nbytes
            ):
                raise DamagedArtefact(f"{self._dataset.file.filename} ends within row {row:,}")
            row = end
        return rows


def _chunk_places(dataset: h5py.Dataset) -> list[int]:
    """Bytes before each chunk of whole rows; empty where HDF5 has to read for us."""
    height, *width = dataset.chunks or (0, 0)
    recipe = dataset.id.get_create_plist()
    filters = {recipe.get_filter(place)[0] for place in range(recipe.get_nfilters())}
    if [*dataset.shape[1:]] != width or len(width) != 1 or filters - {h5py.h5z.FILTER_FLETCHER32}:
        return []
    found = [
        dataset.id.get_chunk_info_by_coord((first, 0)) for first in range(0, len(dataset), height)
    ]
    if any(each.byte_offset is None or each.filter_mask for each in found):
        return []
    return [int(each.byte_offset) for each in found]


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
