"""Warm parents that outlive a group: a library that compiles itself does so once per benchmark.

Owns which parents there are in this process, one for each method and number of threads of a
benchmark's directory. The scheduler closes them at its end. Refuses to measure.
"""

import atexit
from contextlib import suppress
from pathlib import Path

from benchmark.runner.process import Warm

COMPILED = "compiled"
"""Folder in the benchmark's directory: what numba compiled for it, kept from run to run."""
_parents: dict[tuple[Path, str, int], Warm] = {}


def parent_of(directory: Path, address: str, threads: int) -> Warm:
    """The parent of the measured processes of a method; its own time and log are the caller's."""
    key = directory, address, threads
    if key not in _parents:
        compiled = directory / COMPILED
        compiled.mkdir(exist_ok=True)
        log = directory / "indexes" / f"first-use-{len(_parents)}.log"
        _parents[key] = Warm(address, threads, log, compiled)
    return _parents[key]


def close_parents() -> None:
    """End all parents of this process."""
    while _parents:
        _, warm = _parents.popitem()
        warm.close()
        with suppress(OSError):
            warm.log.unlink(missing_ok=True)


atexit.register(close_parents)
