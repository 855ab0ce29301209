"""One process at a time on one directory.

Owns the advisory lock (flock: the kernel drops it when the holder dies, so none goes stale).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearfield.errors import RunLocked, UsageError, disk_errors


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory` (created if absent) for the block.

    Raises `RunLocked` at once, naming the holder's process id, if another process has it, and
    `UsageError` when there is a file of that name.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"expected a directory, {directory} is a file: choose another path")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise RunLocked(
                f"{directory} is in use by another nearfield process (pid {holder}). "
                "Wait until it ends, or choose another directory"
            ) from None
        with disk_errors(directory):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
