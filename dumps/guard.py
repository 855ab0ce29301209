"""Whether HDF5 gets through a file at all: a child process reads it first, under limits.

A few changed bytes can keep HDF5 busy for ever, make it ask for terabytes, or kill the process.
`unreadable` lets a child open the file, follow what its readers follow, and read every value; what
it doesn't survive in time, nobody here opens. Owns that child (one per process, kept for the next
file); refuses to judge the content: errors that HDF5 reports are left to the reader.
"""

import atexit
import json
import math
import os
import resource
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import h5py

PATIENCE_S = 60.0
"""What any file may take ..."""
BYTES_PER_S = 20 << 20
"""... and what its size may add to that."""
MEMORY_BYTES = 8 << 30
"""Address space of the child."""
PLACES, MOST_ROWS = 1 << 20, 1 << 16
"""What it reads at once."""
DIED = "HDF5 died of it"


def unreadable(path: Path) -> str | None:
    """Why the file at `path` mustn't be opened, or None. Cost: one read of it in a child."""
    limit_s = PATIENCE_S + path.stat().st_size / BYTES_PER_S
    with _turn:
        # the system may kill a child for other reasons; a file that is the reason does it twice
        answer = _child().ask(path, limit_s)
        if answer is not None and answer.startswith(DIED):
            answer = _child().ask(path, limit_s)
    return None if answer is None else f"{path.name} can't be read: {answer}"


class _Child:
    """A process that reads files on demand."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            # -P: the folder that the command runs in is no place to import from
            [sys.executable, "-P", "-m", "dumps.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: Path, limit_s: float) -> str | None:
        """None, or what became of reading `path`."""
        try:
            return self._answer(path, limit_s)
        except BaseException:
            # its answer would be taken for that to the next question
            self.end()
            raise

    def _answer(self, path: Path, limit_s: float) -> str | None:
        assert self.process.stdin is not None  # noqa: S101  (for the type checker)
        assert self.process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps(os.fspath(path.resolve())).encode() + b"\n")
            self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            self.end()
            return f"HDF5 wasn't through with it after {limit_s:.0f} s"
        answer = self.process.stdout.readline()
        if answer:
            return json.loads(answer)
        self.end()
        return f"{DIED} (exit status {self.process.returncode})"

    def end(self) -> None:
        """Kill it and let go of it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


_children: dict[int, _Child] = {}
_turn = Lock()


def _child() -> _Child:
    """The child of this process (a fork of it makes its own)."""
    own = os.getpid()
    child = _children.get(own)
    if child is None:
        atexit.register(_end, own)
    elif child.process.poll() is not None:
        child.end()
    else:
        return child
    child = _children[own] = _Child()
    return child


def _end(own: int) -> None:
    if own == os.getpid():
        _children[own].end()


def read_through(path: str) -> str | None:
    """Read all of the file as a reader of a matrix would; a sentence if memory doesn't suffice."""
    try:
        with h5py.File(path, "r") as file:
            size = Path(path).stat().st_size
            for name in file:
                if isinstance(file.get(name, getlink=True), h5py.HardLink):
                    _read(file[name], size)
            for name in file.attrs:
                file.attrs[name]
    except MemoryError:
        return f"it asks for more than {MEMORY_BYTES >> 30} GiB of memory"
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return None
    return None


def _read(dataset: Any, file_bytes: int) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        return
    places = math.prod(dataset.shape or ())
    # what claims more than the file holds isn't read by anyone: its shape is refused
    if not places or places * min(dataset.dtype.itemsize, 4) > 2 * file_bytes:
        return
    dataset.id.get_num_chunks() if dataset.chunks else None
    rows = max(1, min(MOST_ROWS, PLACES * dataset.shape[0] // places))
    for first in range(0, dataset.shape[0], rows):
        dataset[first : first + rows]


def main() -> None:
    """Answer one path a line until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(read_through(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
