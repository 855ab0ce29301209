"""Turns at a host's cores, where it has more workers than cores.

With several workers to a core one reads and writes over the network while another computes. Left to
the kernel they would all compute, each at its share of the speed, and then all wait for the network
at once. So a task computes in its turn: as many at a time as there are cores. A turn is a lock of
the kernel's, which can't outlive its process. Only workers that share a scratch folder, those of
one cluster, wait for each other: nobody waits for a build beside it, which may be suspended.
Refuses to make anybody wait who finds no place for the locks.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from distributed import get_worker

from nearfield.machine import available_cores

ASK_S = 0.01


@contextmanager
def turn(place: Path | None = None) -> Iterator[None]:
    """Compute in the block; before it, wait until one of this process's cores is free.

    place: the folder of the locks; where this worker and its like keep theirs, by default. Outside
    a worker nobody is waited for.
    """
    with ExitStack() as stack:
        try:
            folder = place or _place_of_worker()
            folder.mkdir(mode=0o700, exist_ok=True)
            files = [
                stack.enter_context((folder / str(core)).open("ab"))
                for core in sorted(os.sched_getaffinity(0))[: available_cores()]
            ]
        except (OSError, ValueError):
            yield
            return
        while not any(_taken(file) for file in files):
            time.sleep(ASK_S)
        yield


def _place_of_worker() -> Path:
    """Beside the scratch folders of this host's workers; raises `ValueError` outside of one."""
    return Path(get_worker().local_directory).parent / "turns"


def _taken(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
