"""Warm parents that outlive a group: a library that compiles itself does so once per benchmark.

Owns which parents there are in this process, one for each method and number of threads of a
benchmark's directory, and what is remembered of their first uses from run to run. The scheduler
closes them at its end. Refuses to measure.
"""

import atexit
import json
from contextlib import suppress
from pathlib import Path

from benchmark.runner.process import Warm
from nearfield.files import write_bytes

COMPILED = "compiled"
"""Folder in the benchmark's directory: what numba compiled for it, kept from run to run."""
FIRST_USES = "first-uses.json"
"""In that folder: seconds that the first use of a method will take at most, as far as is known."""
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


def first_use_expected(directory: Path, address: str) -> float | None:
    """Seconds that the first use of a method will take, by earlier ones; None if unknown."""
    return _first_uses(directory).get(address)


def remember_first_use(directory: Path, address: str, seconds: float, *, whole: bool) -> None:
    """Write down what a first use took; one that was stopped before its end is taken for half."""
    known = _first_uses(directory) | {address: seconds if whole else 2 * seconds}
    path = directory / COMPILED / FIRST_USES
    write_bytes(path, (json.dumps(known, indent=2) + "\n").encode())


def _first_uses(directory: Path) -> dict[str, float]:
    try:
        return dict(json.loads((directory / COMPILED / FIRST_USES).read_bytes()))
    except (OSError, ValueError):
        return {}


def close_parents() -> None:
    """End all parents of this process."""
    while _parents:
        _, warm = _parents.popitem()
        warm.close()
        with suppress(OSError):
            warm.log.unlink(missing_ok=True)


atexit.register(close_parents)
