"""Files that are either whole or absent.

Owns the way in which anything is written: a temporary neighbour, fsync, rename, fsync of the
folder; or, to an object store, a local file that becomes the object by one PUT. Refuses to know
what is inside a file.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nearfield.errors import disk_errors
from nearfield.locations import Location, scratch_file
from nearfield.objects import ObjectPath

TEMPORARY_MARK = ".partial-"
SUM_BYTES = 4 << 20
SYNC_BYTES = 64 << 20


@contextmanager
def atomic_path(target: Location, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it becomes `target`, else it is removed.

    The block writes the whole file and closes it. After the block the file is fsynced and renamed
    over `target`, and the folder is fsynced; `durable` False: only renamed. An object's temporary
    file lies in the cache and is sent. Raises `DiskFull` when there is no room.
    """
    if isinstance(target, ObjectPath):
        with scratch_file(target.name) as temporary, disk_errors(temporary):
            yield temporary
            target.put(temporary)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}")
    try:
        with disk_errors(target):
            yield temporary
            if durable:
                fsync_path(temporary)
            temporary.replace(target)
            if durable:
                fsync_path(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(target: Location, content: bytes) -> None:
    """Write `content` to `target` atomically."""
    if isinstance(target, ObjectPath):
        target.write_bytes(content)
        return
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def fsync_path(path: Path) -> None:
    """Force a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def synced_along(path: Path) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the bytes that were just written to `path`, which exists.

    A large file goes to the disk in the background while it grows, so that the fsync at the end
    finds little to do: otherwise the disk idles while the processor works, and then the other way
    round. Raises what the disk said, at the end or before.
    """
    descriptor = os.open(path, os.O_RDONLY)
    due: list[Future[None]] = []
    waiting = 0

    def wrote(amount: int) -> None:
        nonlocal waiting
        waiting += amount
        if due and due[0].done():
            due.pop().result()
        if waiting >= SYNC_BYTES and not due:
            due.append(pool.submit(os.fdatasync, descriptor))
            waiting = 0

    try:
        with ThreadPoolExecutor(1) as pool:
            yield wrote
        if due:
            due.pop().result()
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; reads it once, in blocks that are worth a change of threads."""
    digest = hashlib.sha256()
    block = bytearray(SUM_BYTES)
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(block):
            digest.update(memoryview(block)[:size])
    return digest.hexdigest()


def modified(path: Location) -> float:
    """When a file or object was written last, in seconds since 1970 by the clock of its store."""
    return path.modified() if isinstance(path, ObjectPath) else path.stat().st_mtime


def files_of(path: Path) -> list[Path]:
    """The file, or all files in the folder, in order."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in found if file.is_file()]


def stamps_of(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of all files that these are or hold: they change when a file does."""
    files = [file for path in paths for file in files_of(path)]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def remove_tree(folder: Location) -> None:
    """Remove everything in `folder`, which needn't be there."""
    if isinstance(folder, ObjectPath):
        folder.remove_tree()
    elif folder.exists():
        shutil.rmtree(folder)


def remove_temporaries(folder: Path) -> None:
    """Remove what interrupted writers left in `folder`; call only under the folder's lock."""
    for path in folder.glob(f".*{TEMPORARY_MARK}*"):
        path.unlink(missing_ok=True)
