"""The vectors that tasks work on, as a file that all workers can reach.

On a file system a `.npy` file that is mapped where it lies. In an object store a file of segments
(index_build/segments.py) of consecutive rows: a task fetches the rows that it needs, checked; the
few tasks that need all of them share one checked copy per machine. Refuses to know what they are.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from index_build.segments import Arrays, Segments, open_segments, write_segments
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path
from nearfield.locations import Location, cache_folder, location
from nearfield.objects import ObjectPath
from nearfield.space import Float32s
from nearfield.traffic import note_read
from nearfield.vectorset import row_blocks

ARRAY = "rows"
FOLDER = "vectors"
SEGMENT_BYTES = 16 << 20


def send_vectors(target: ObjectPath, vectors: Float32s, *, fingerprint: str) -> None:
    """Make `target` hold vectors float32 [n, d], unless it holds those of `fingerprint` already."""
    try:
        if open_segments(target).fingerprint == fingerprint:
            return
    except (MissingFile, DamagedArtefact):
        pass

    def segments() -> Iterator[tuple[int, Arrays]]:
        for number, block in enumerate(row_blocks(vectors, SEGMENT_BYTES)):
            yield number, {ARRAY: np.ascontiguousarray(block, np.float32)}

    shape = {"n": len(vectors), "d": vectors.shape[1]}
    write_segments(target, segments(), fingerprint=fingerprint, facts=shape)


def mapped_vectors(named: str) -> Float32s:
    """All of them, float32 [n, d], mapped: where they lie, or from this machine's copy.

    Raises `MissingFile`, `DamagedArtefact`, `DiskFull`.
    """
    path = location(named)
    if isinstance(path, Path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    index = open_segments(path)
    copy = _copy_of(path, index)
    shape = (index.facts["n"], index.facts["d"])
    return np.memmap(copy, np.float32, "r", shape=shape)


def vectors_of(named: str, first: int, stop: int) -> Float32s:
    """Rows `first`..`stop`-1 (fewer at the end), float32, in memory and nothing else."""
    path = location(named)
    if isinstance(path, Path):
        rows = np.array(mapped_vectors(named)[first:stop])
        note_read(rows.nbytes)
        return rows
    index = open_segments(path)
    starts = np.cumsum([0, *(shape[0] for _, shape, *_ in index.entries.values())])
    stop = min(stop, int(starts[-1]))
    found = np.empty((stop - first, index.facts["d"]), np.float32)
    for number in range(len(starts) - 1):
        low, high = max(first, int(starts[number])), min(stop, int(starts[number + 1]))
        if low < high:
            rows = index.read(number, ARRAY)
            found[low - first : high - first] = rows[low - starts[number] : high - starts[number]]
    return found


def forget_copy(named: str) -> None:
    """Remove this machine's copy of all vectors, if there is one."""
    path = location(named)
    if isinstance(path, ObjectPath):
        for left in (cache_folder() / FOLDER).glob(f"{_key(path)}*"):
            left.unlink(missing_ok=True)


def _copy_of(path: ObjectPath, index: Segments) -> Path:
    copy = cache_folder() / FOLDER / f"{_key(path)}-{index.fingerprint}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    # one of a machine's workers fetches, the others wait for it
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            with atomic_path(copy, durable=False) as temporary:
                path.get(temporary)
                _check(path, temporary, index)
    return copy


def _check(path: Location, copy: Path, index: Segments) -> None:
    try:
        found = open_segments(copy)
        if found.entries != index.entries:
            raise DamagedArtefact(f"{path} was replaced while it was read: run again")
        for segment, name in found.entries:
            found.read(segment, name)
    except DamagedArtefact as error:
        raise DamagedArtefact(f"{path} isn't whole: {error}") from error


def _key(path: ObjectPath) -> str:
    return hashlib.sha256(path.url.encode()).hexdigest()[:16]
