"""Every error that nearfield raises on purpose, and the exit code that each one ends with.

    NearfieldError
    ├── UsageError          2   wrong option, path or configuration   (ValueError)
    │   └── MissingFile         a path that isn't there               (FileNotFoundError)
    ├── InputRejected       3   the data itself can't be accepted     (ValueError)
    │   └── DamagedArtefact     a file of ours that fails its checksum
    ├── QualityGate         4   the result is worse than was asked for
    ├── Infrastructure      5   disk, cluster, database; resumable    (RuntimeError)
    │   ├── DiskFull
    │   ├── ShardFailed
    │   ├── DatabaseError
    │   └── StoreError
    └── RunLocked          75   another process holds the lock

A message answers four questions: what was expected, what arrived, where, what to do next.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self


class NearfieldError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the command's exit status."""

    exit_code = 1


class UsageError(NearfieldError, ValueError):
    """A wrong option, path or configuration."""

    exit_code = 2


class MissingFile(UsageError, FileNotFoundError):
    """A path that was named but isn't there."""

    def __new__(cls, *said: object) -> Self:
        """Its first base refuses to make an OSError: from a task it came as a bare Exception."""
        return OSError.__new__(cls, *said)


class InputRejected(NearfieldError, ValueError):
    """The data can't be accepted as it is."""

    exit_code = 3


class DamagedArtefact(InputRejected):
    """A file that nearfield wrote no longer matches its manifest."""


class QualityGate(NearfieldError):
    """The result is worse than what was asked for."""

    exit_code = 4


class Infrastructure(NearfieldError, RuntimeError):
    """Disk, cluster or database failed; running the same command again resumes."""

    exit_code = 5


class DiskFull(Infrastructure, OSError):
    """A file system has no room left."""

    def __new__(cls, *said: object) -> Self:
        """Its first base refuses to make an OSError: from a task it came as a bare Exception."""
        return OSError.__new__(cls, *said)


class ShardFailed(Infrastructure):
    """A shard's task failed after its retries; the message names the shard."""


class DatabaseError(Infrastructure):
    """The database can't be reached, refuses a right, or broke off."""


class StoreError(Infrastructure):
    """An object store can't be reached, or broke off."""


class RunLocked(NearfieldError):
    """Another process works on the same directory."""

    exit_code = 75


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into `DiskFull` naming `where`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise DiskFull(
                f"no room left on the file system of {where}. Nothing that was finished is lost: "
                "free space there, then run the same command again to resume"
            ) from error
        raise
