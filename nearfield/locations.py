"""Where things lie: a path of this machine's file systems, or a URL of an object store.

Owns how a text becomes one or the other, and local copies of single files for what can only read
files. What is written goes through `nearfield.files`, which writes both alike.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nearfield.errors import UsageError, disk_errors
from nearfield.objects import ObjectPath

Location = Path | ObjectPath
CACHE_VARIABLE = "NEARFIELD_CACHE"
URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.DOTALL)
SCRATCH_MARK = "partial-"
STALE_S = 24 * 3600
"""Age at which what an interrupted process left in the cache is removed."""
UNUSED_S = 7 * 24 * 3600
"""Copies that were not used for so long are removed when another is made."""


def location(value: Location | str) -> Location:
    """The place that a text means; a URL that went through `Path` lost a slash and gets it back.

    file:// is a path. Raises `UsageError` for credentials in a URL.
    """
    if isinstance(value, ObjectPath):
        return value
    found = URL.fullmatch(str(value))
    if found is None:
        return Path(value)
    protocol, rest = found.groups()
    if protocol in ("file", "local"):
        return Path("/" + rest)
    return ObjectPath(f"{protocol}://{rest.rstrip('/')}")


def local_path(path: Location) -> Path:
    """`path`, which must be one of this machine. Raises `UsageError` for a URL."""
    found = location(path)
    if isinstance(found, ObjectPath):
        raise UsageError(
            f"expected a local path, got {found}: this command works on local paths only"
        )
    return found


def cache_folder() -> Path:
    """Where copies of objects lie on this machine: NEARFIELD_CACHE, else ~/.cache/nearfield.

    All of it can be fetched again: it may be removed whenever no command runs.
    """
    named = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(named) if named else Path(base) / "nearfield"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"copies of objects need a folder on disk, and {folder} can't be made "
            f"({error.strerror}): name another in {CACHE_VARIABLE}"
        ) from error
    return folder


def remove_unused(kept: Path) -> None:
    """Remove files and folders in `kept`, a folder of the cache, that nobody needs any more.

    Those of work that was abandoned have nobody else who would. Who still has one open can read on.
    """
    for left in kept.iterdir():
        with suppress(OSError):  # another process may be faster
            if time.time() - left.stat().st_mtime <= UNUSED_S:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the cache for files on their way to or from a store; removed afterwards."""
    folder = cache_folder()
    _remove_stale(folder)
    with tempfile.TemporaryDirectory(prefix=SCRATCH_MARK, dir=folder) as place:
        yield Path(place)


@contextmanager
def scratch_file(name: str) -> Iterator[Path]:
    """The path of one such file."""
    with scratch_folder() as folder:
        yield folder / name


@contextmanager
def folder_near(path: Location) -> Iterator[Path]:
    """A folder for files that nobody else needs: the directory itself, or for a store's one in the
    cache.
    """
    if isinstance(path, Path):
        yield path
        return
    with scratch_folder() as folder:
        yield folder


@contextmanager
def local_file(path: Location) -> Iterator[Path]:
    """The file itself, or for the block a copy of the object. Raises `FileNotFoundError`."""
    if isinstance(path, Path):
        yield path
        return
    with scratch_file(path.name) as copy:
        with disk_errors(copy):
            path.get(copy)
        yield copy


def _remove_stale(folder: Path) -> None:
    for left in folder.glob(f"{SCRATCH_MARK}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
