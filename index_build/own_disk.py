"""Intermediate files that a host keeps on a disk of its own, since it will read them again itself.

Where the folder of the run is another machine's, they needn't cross the network, twice. They lie in
the cache, or in the folder where that is near or the cache has no room. They may be gone when they
are asked for, with their host or by a broom: whoever wants one must be able to do without. Their
bytes aren't counted as traffic. Refuses to know what they are.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index_build.segments import Arrays, Segments, open_segments, write_segments
from index_build.work import Work
from nearfield.errors import DamagedArtefact, DiskFull, MissingFile, UsageError
from nearfield.locations import Location, cache_folder, location, remove_unused
from nearfield.mounts import is_remote
from nearfield.traffic import uncounted

FOLDER = "found"


def keep(work: Work, kind: str, number: int, segments: Iterable[tuple[int, Arrays]]) -> None:
    """Write such a file, marked. Raises `DiskFull` when there is room nowhere.

    Those of builds that were abandoned go, after a while.
    """
    own = _own_folder(work)
    if own is not None and own.is_dir():
        remove_unused(own)
    mark, given = work.mark(kind, number), list(segments)
    with uncounted():
        try:
            write_segments(own_path(work, kind, number), given, fingerprint=mark)
        except DiskFull:
            write_segments(work.path(kind, number), given, fingerprint=mark)


@contextmanager
def kept(work: Work, kind: str, number: int) -> Iterator[Segments | None]:
    """The file where this host has it, whose arrays are read in the block; else None."""
    mark = work.mark(kind, number)
    with uncounted():
        own = _opened(own_path(work, kind, number), mark)
        yield own if own is not None else _opened(work.path(kind, number), mark)


def numbers_kept(work: Work, kind: str, count: int) -> list[int]:
    """Which of so many files this host has near."""
    return [
        number for number in range(count)
        if _opened(own_path(work, kind, number), work.mark(kind, number)) is not None
    ]  # fmt: skip


def forget(work: Work, kind: str) -> None:
    """Remove this host's files of a kind; not those in the folder of the run."""
    folder = _own_folder(work)
    if folder is not None:
        for left in folder.glob(f"{_key(work)}-{kind}-*"):
            left.unlink(missing_ok=True)


def own_path(work: Work, kind: str, number: int) -> Location:
    """Where this host keeps the file."""
    folder = _own_folder(work)
    if folder is None:
        return work.path(kind, number)
    return folder / f"{_key(work)}-{kind}-{number:05d}"


def _opened(path: Location, mark: str) -> Segments | None:
    """The file, if it is there with that mark; its arrays are checked when they are read."""
    try:
        found = open_segments(path)
    except (MissingFile, DamagedArtefact):
        return None
    return found if found.fingerprint == mark else None


def _own_folder(work: Work) -> Path | None:
    """None where the folder of the run is as near, or there is no other."""
    directory = location(work.directory)
    if isinstance(directory, Path) and not is_remote(directory):
        return None
    try:
        folder = cache_folder() / FOLDER
    except UsageError:
        return None
    return None if is_remote(folder) else folder


def _key(work: Work) -> str:
    return hashlib.sha256(f"{work.directory} {work.fingerprint}".encode()).hexdigest()[:16]
