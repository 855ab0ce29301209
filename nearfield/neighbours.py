"""The neighbour table: rows, neighbours, distances; and the part file that one task writes of it.

Owns the part file's format (HDF5, docs/formats.md) and its invariants. A part is written once,
reopened and checked before it gets its name; its manifest comes last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path
from nearfield.hdf5 import new_dataset, new_file, stored_bytes
from nearfield.locations import Location, local_file
from nearfield.manifest import Manifest, check_file, file_entry, read_manifest, write_manifest
from nearfield.space import Float32s, Int32s
from nearfield.traffic import note_read, note_written

PART_KIND = "neighbour part"
PART_FORMAT_VERSION = 1
EMPTY = -1
"""Stands where fewer than k candidates were found: in parts only, never in the matrix."""


@dataclass(frozen=True)
class NeighbourTable:
    """Neighbour lists of some rows.

    rows: int32 [m], ascending. neighbours: int32 [m, k], row numbers, never the row itself, none
    twice. distances: float32 [m, k]. Each list is sorted by (distance, neighbour); unused places
    at its end hold `EMPTY` and infinity.
    """

    rows: Int32s
    neighbours: Int32s
    distances: Float32s

    @property
    def k(self) -> int:
        """Places per list."""
        return int(self.neighbours.shape[1])


def write_part(path: Location, table: NeighbourTable, *, fingerprint: str) -> Manifest:
    """Write `table` to the HDF5 file `path` and its manifest beside it (`.json`).

    Raises `DiskFull`. Cost: one write and one read of the table.
    """
    with atomic_path(path) as temporary:
        _write(temporary, table)
        note_written(temporary.stat().st_size)
        written = _read(temporary)
        if not all(
            np.array_equal(getattr(table, name), getattr(written, name))
            for name in ("rows", "neighbours", "distances")
        ):
            raise DamagedArtefact(f"{path} didn't read back as it was written: check the disk")
        entry = file_entry(temporary)
    return write_manifest(
        path.with_suffix(".json"),
        kind=PART_KIND,
        fingerprint=fingerprint,
        format_version=PART_FORMAT_VERSION,
        files={path.name: entry},
        facts={"rows": len(table.rows), "k": table.k},
    )


def read_part(path: Location, *, verify: bool = True) -> NeighbourTable:
    """Read a whole part. Raises `DamagedArtefact`.

    Its size is compared with its manifest, and with `verify` its checksum before the first byte;
    without, HDF5's checksum of each chunk covers what is read.
    """
    entry = read_manifest(path.with_suffix(".json"), kind=PART_KIND, verify=False).files[path.name]
    with local_file(path) as file, _damage(path):
        if verify:
            check_file(file, entry)
        return _read(file)


def read_part_rows(path: Location, first: int, stop: int) -> NeighbourTable:
    """The lists of rows `first`..`stop`-1 of a part, without reading the rest.

    The file's size is compared with its manifest; what is read is covered by HDF5's checksum of
    each chunk. Raises `DamagedArtefact`.
    """
    read_manifest(path.with_suffix(".json"), kind=PART_KIND, verify=False)
    with _ranges(path) as source, _damage(path), h5py.File(source, "r") as file:
        rows = file["rows"][...]
        low, high = np.searchsorted(rows, (first, stop))
        lists = [file[name][low:high] for name in ("neighbours", "distances")]
        note_read(rows.nbytes + sum(array.nbytes for array in lists))
        return NeighbourTable(rows[low:high], *lists)


def part_is_finished(path: Location, *, fingerprint: str) -> bool:
    """Whether a whole part of that fingerprint is there already, so that a resumed run keeps it."""
    try:
        manifest = read_manifest(path.with_suffix(".json"), kind=PART_KIND)
    except (MissingFile, DamagedArtefact):
        return False
    return manifest.fingerprint == fingerprint


@contextmanager
def _ranges(path: Location) -> Iterator[Any]:
    if isinstance(path, Path):
        yield path
        return
    with path.opened() as stream:
        yield stream


@contextmanager
def _damage(path: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DamagedArtefact(
            f"{path} can't be read ({error}): it was changed; run again"
        ) from error


def _write(path: Path, table: NeighbourTable) -> None:
    datasets = (
        ("rows", table.rows, EMPTY),
        ("neighbours", table.neighbours, EMPTY),
        ("distances", table.distances, np.inf),
    )
    room = sum(stored_bytes(values.shape, values.itemsize) for _, values, _ in datasets)
    with new_file(path, room) as file:
        for name, values, fill in datasets:
            new_dataset(file, name, values.shape, values.dtype.str, fill)[...] = values


def _read(path: Path) -> NeighbourTable:
    with h5py.File(path, "r") as file:
        return NeighbourTable(*(file[name][...] for name in ("rows", "neighbours", "distances")))
