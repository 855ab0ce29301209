"""How many bytes tasks read from the files that hosts share, and write into them.

Counted where the bytes go by: whoever reads or writes such a file says so here. Per thread, so
that the tasks of one worker don't mix. Refuses to know whether a byte crossed a network: that
depends on where the folder is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Traffic:
    """Bytes read and bytes written."""

    read: int = 0
    written: int = 0

    def __iadd__(self, other: "Traffic") -> "Traffic":
        self.read += other.read
        self.written += other.written
        return self


class _Current(threading.local):
    def __init__(self) -> None:
        self.count = Traffic()


_current = _Current()


@contextmanager
def counted() -> Iterator[Traffic]:
    """What this thread reads and writes in the block, nested blocks included."""
    outer, _current.count = _current.count, Traffic()
    try:
        yield _current.count
    finally:
        outer += _current.count
        _current.count = outer


@contextmanager
def uncounted() -> Iterator[None]:
    """What this thread reads and writes in the block is not in a file that hosts share."""
    outer, _current.count = _current.count, Traffic()
    try:
        yield
    finally:
        _current.count = outer


def note_read(count: int) -> None:
    """So many bytes of a shared file were read."""
    _current.count.read += count


def note_written(count: int) -> None:
    """So many bytes were written into a shared file."""
    _current.count.written += count
