"""One process at a time on one directory.

Owns the advisory lock (flock: the kernel drops it when the holder dies, so none goes stale). What a
store of objects can offer in its place is in nearfield/lease.py.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nearfield.errors import RunLocked, UsageError, disk_errors
from nearfield.lease import leased
from nearfield.locations import Location, local_path
from nearfield.objects import ObjectPath

LOCK = ".lock"


@contextmanager
def locked(directory: Location) -> Iterator[None]:
    """Hold the lock of `directory` (created if absent), a path of this machine, for the block.

    A directory that was created for it goes again when the block fails with nothing in it.
    Raises `RunLocked` at once, naming the holder's process id, if another process has it, and
    `UsageError` when there is a file of that name, or for a URL.
    """
    directory = local_path(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"expected a directory, {directory} is a file: choose another path")
    made = not directory.exists()
    descriptor = _taken(directory)
    try:
        with disk_errors(directory):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except BaseException:
        if made:
            _remove_unused(directory)
        raise
    finally:
        os.close(descriptor)


def _taken(directory: Path) -> int:
    """The descriptor of the lock's file, which this process now holds."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as opened:
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            opened.callback(os.close, descriptor)
            _hold(directory, descriptor)
            # who held it before may have removed it meanwhile
            if os.path.samestat(os.fstat(descriptor), (directory / LOCK).stat()):
                opened.pop_all()
                return descriptor


def _hold(directory: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise RunLocked(
            f"{directory} is in use by another nearfield process (pid {holder}). "
            "Wait until it ends, or choose another directory"
        ) from None


def _remove_unused(directory: Path) -> None:
    """Remove the directory if it has nothing but the lock, which this process holds."""
    if [entry.name for entry in directory.iterdir()] == [LOCK]:
        (directory / LOCK).unlink()
        with suppress(OSError):
            directory.rmdir()


@contextmanager
def held(directory: Location) -> Iterator[Callable[[], None]]:
    """Hold the lock of a path, or the lease of a URL, for the block.

    Yields a check that raises `RunLocked` or `StoreError` when it was lost, which only a lease can
    be: to be called before what others read is replaced.
    """
    if isinstance(directory, ObjectPath):
        with leased(directory) as hold:
            yield hold.check
        return
    with locked(directory):
        yield lambda: None


def is_held(path: Path) -> bool:
    """Whether some process holds the flock of a file, which needn't be there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
