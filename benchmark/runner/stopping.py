"""Ending what a run measures on the machines of a cluster, once nobody waits for it any more.

Dask can't end a task that runs. So each run is written down here, in the process that measures for
it, and whoever waits for a measured process asks `check` meanwhile. A run is stopped by the client
at its end, however it ends, and by the next one in the same directory, should its client have been
killed. Owns that list; refuses to end processes itself.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from nearfield.errors import Infrastructure

POLL_S = 0.05
WAIT_S = 30.0
"""For a group to notice that it is stopped; it does between two looks at its process."""


class Stopped(Infrastructure):
    """The run that a group is measured for has ended."""


@dataclass(eq=False)
class _Measuring:
    directory: Path
    run: str
    stop: Event = field(default_factory=Event)


_measuring: set[_Measuring] = set()
_over: set[str] = set()
"""Runs that have ended: what is still handed out for them isn't begun."""
_mine: ContextVar[_Measuring | None] = ContextVar("measuring", default=None)


@contextmanager
def measuring(directory: Path, run: str) -> Iterator[None]:
    """Be known to measure for a run in a benchmark's directory. Raises `Stopped` if it is over."""
    one = _Measuring(directory, run)
    _measuring.add(one)
    token = _mine.set(one)
    try:
        if run in _over:
            one.stop.set()
        check()
        yield
    finally:
        _mine.reset(token)
        _measuring.discard(one)


def check() -> None:
    """Raise `Stopped` where the run that this thread measures for was stopped."""
    one = _mine.get()
    if one is not None and one.stop.is_set():
        raise Stopped(f"the run that measured in {one.directory} has ended: start it again")


async def stop_groups(directory: Path, run: str = "") -> None:
    """On a worker: stop what is measured in the directory, and wait until it has ended. `run`: of
    which nothing may begin any more, either.
    """
    _over.add(run)
    end = time.monotonic() + WAIT_S
    while here := [one for one in list(_measuring) if one.directory == directory]:
        for one in here:
            one.stop.set()
        if time.monotonic() > end:
            return
        await asyncio.sleep(POLL_S)
