"""Turns at a host's cores, where it has more workers than cores.

With several workers to a core one reads and writes over the network while another computes. Left to
the kernel they would all compute, each at its share of the speed, and then all wait for the network
at once. So a task computes in its turn: as many at a time as there are cores. A turn is a lock of
the kernel's, which can't outlive its process. Refuses to make anybody wait who finds no place for
the locks.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

ASK_S = 0.01


@contextmanager
def turn() -> Iterator[None]:
    """Compute in the block; before it, wait until one of this process's cores is free."""
    with ExitStack() as stack:
        try:
            files = [
                stack.enter_context(_lock_of(core)) for core in sorted(os.sched_getaffinity(0))
            ]
        except OSError:
            yield
            return
        while not any(_taken(file) for file in files):
            time.sleep(ASK_S)
        yield


def _lock_of(core: int) -> BinaryIO:
    folder = Path(tempfile.gettempdir()) / f"nearfield-turns-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return (folder / str(core)).open("ab")


def _taken(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
