"""The vectors that tasks work on, as a file that all workers can reach.

On a disk of this machine a `.npy` file that is mapped where it lies. Over a network file system
that file, of which this machine makes a copy, once, for whoever needs more than some rows. In an
object store a file of segments (index_build/segments.py) of consecutive rows: a task fetches the
rows that it needs, checked, or shares the machine's checked copy. Refuses to know what they are.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from index_build.segments import Arrays, Segments, open_segments, write_segments
from nearfield.errors import DamagedArtefact, DiskFull, MissingFile, UsageError
from nearfield.files import atomic_path
from nearfield.locations import Location, cache_folder, location, remove_unused
from nearfield.mounts import is_remote
from nearfield.objects import ObjectPath
from nearfield.space import Float32s, Int32s
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
        return np.load(_nearest(path), mmap_mode="r", allow_pickle=False)
    index = open_segments(path)
    copy = _copy_of(path, index)
    shape = (index.facts["n"], index.facts["d"])
    return np.memmap(copy, np.float32, "r", shape=shape)


def at_hand(named: str) -> bool:
    """Whether this machine has the vectors without asking another one for them."""
    path = location(named)
    return isinstance(path, Path) and not is_remote(path)


def vectors_of(named: str, first: int, stop: int) -> Float32s:
    """Rows `first`..`stop`-1 (fewer at the end), float32, in memory and nothing else."""
    path = location(named)
    if isinstance(path, Path):
        rows = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[first:stop])
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


def rows_at_hand(named: str, rows: Int32s) -> Float32s:
    """Some rows float32 [m, d] out of all, which this machine fetches if it has none."""
    vectors = mapped_vectors(named)
    found = np.empty((len(rows), vectors.shape[1]), np.float32)
    # clip: rows are in range, and numpy takes them without a copy in between
    np.take(vectors, rows, axis=0, out=found, mode="clip")
    if at_hand(named):
        note_read(found.nbytes)
    return found


def forget_copy(named: str) -> None:
    """Remove this machine's copy of all vectors, if there is one."""
    path = location(named)
    if not at_hand(named):
        for left in (cache_folder() / FOLDER).glob(f"{_key(path)}*"):
            left.unlink(missing_ok=True)


def _nearest(path: Path) -> Path:
    """The file, or this machine's copy of it where it is another machine's and there is room."""
    if not is_remote(path):
        return path
    found = path.stat()
    version = f"{found.st_size}-{found.st_mtime_ns}"
    try:
        if is_remote(cache_folder()):
            return path
        size = found.st_size
        return _copied(path, version, size, lambda copy: _copy_whole(path, copy, size))
    except (DiskFull, UsageError):
        return path


def _copy_whole(path: Path, copy: Path, size: int) -> None:
    shutil.copyfile(path, copy)
    note_read(size)
    if copy.stat().st_size != size:
        raise DamagedArtefact(f"{path} changed while it was copied: run again")


def _copy_of(path: ObjectPath, index: Segments) -> Path:
    def fetch(copy: Path) -> None:
        path.get(copy)
        _check(path, copy, index)

    return _copied(path, index.fingerprint, path.stat().st_size, fetch)


def _copied(path: Location, version: str, size: int, fetch: Callable[[Path], None]) -> Path:
    """This machine's copy, fetched by one of its workers while the others wait.

    Copies of builds that were abandoned go, after a while.
    """
    copy = cache_folder() / FOLDER / f"{_key(path)}-{version}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # copies aren't fsynced: after a power cut one may have its name and not its bytes
        if not copy.exists() or copy.stat().st_size != size:
            remove_unused(copy.parent)
            with atomic_path(copy, durable=False) as temporary:
                fetch(temporary)
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


def _key(path: Location) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:16]
