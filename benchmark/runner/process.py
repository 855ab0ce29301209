"""One measured process: started, watched, ended in time and before it takes too much memory.

Owns the child's environment, time-out and memory cap, and how its end is read. A library's crash,
endless loop or hunger is a result here, never an error. Refuses to know what is measured.
"""

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import psutil

from benchmark.results.outcome import Status
from benchmark.runner.stopping import check
from nearfield.errors import DiskFull

CHILD = "benchmark.runner.child"
WARM = "benchmark.runner.warm"
POLL_S = 0.02
CLOSE_S = 1.0
"""For a parent to end by itself once nobody speaks to it any more."""
NO_ROOM = os.strerror(errno.ENOSPC)
HUNGRY = ("MemoryError", "bad_alloc", "std::length_error", "Cannot allocate memory")
"""What a child says whose allocation failed."""
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)

FORKS = {"NUMBA_THREADING_LAYER": "workqueue"}
"""Numba's own threads: a fork starts them anew, where it would be ended with those of OpenMP."""


@dataclass(frozen=True)
class Limits:
    """What one process may take. `memory_bytes` is resident memory."""

    timeout_s: float
    memory_bytes: int
    threads: int


@dataclass(frozen=True)
class Ended:
    """How a process ended, what it said last, and how long it ran."""

    status: Status
    reason: str
    seconds: float


class Warm:
    """Where the measured processes of one method come from on this machine: forks of one parent.

    The parent (`benchmark.runner.warm`) has everything imported. It is started with the first
    request, and again where it ended: a library that kills its process when it is imported is a
    result, too. Use it as a context manager; at the end nothing of it is left.
    """

    def __init__(self, method: str, threads: int, log: Path, compiled: Path | None = None) -> None:
        """`method`: as `method_named` takes it. `log`: file for what the parent itself says.
        `compiled`: folder in which numba keeps what it compiles; None: where it usually does.
        """
        self.method, self.threads, self.log, self.compiled = method, threads, log, compiled
        self.parent: subprocess.Popen[bytes] | None = None
        self.used_rows = 0
        """Rows of the largest first use of the parent that is there."""
        self.unusable: Ended | None = None
        """How a first use ended that went wrong."""
        self.cold_s = 0.0
        """Seconds that starting parents and their first uses took so far."""

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, request: Path, log: Path, limits: Limits) -> Ended:
        """Run the child on `request` in a process of its own; its output goes to the file `log`."""
        return self._ended(request, log, limits, here=False)

    def use_first(self, request: Path, rows: int, limits: Limits) -> Ended:
        """Have the parent itself do what `request` asks, on so many rows, for all its forks."""
        ended = self._ended(request, self.log, limits, here=True)
        self.cold_s += ended.seconds
        if ended.status is Status.OK:
            self.used_rows = rows
        else:
            self.unusable = ended
        return ended

    def _ended(self, request: Path, log: Path, limits: Limits, *, here: bool) -> Ended:
        started = time.monotonic()
        try:
            stopped, code = self._run([request, log], limits, started, here=here)
        except EOFError:
            code = self.close() or 1
            return Ended(*read_end(code, self.log), time.monotonic() - started)
        except BaseException:
            self.close()
            raise
        seconds = time.monotonic() - started
        if stopped is not None:
            return Ended(*stopped, seconds)
        return Ended(*read_end(code, log), seconds)

    def close(self) -> int:
        """End the parent, and with it whatever it runs; returns its exit code."""
        self.used_rows = 0
        if self.parent is None:
            return 0
        parent, self.parent = self.parent, None
        for stream in (parent.stdin, parent.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):  # one that is dying says how only if left alone
            parent.wait(CLOSE_S)
        if parent.returncode is None:
            _end_group(parent.pid)
        return parent.wait()

    def _run(
        self, files: Sequence[Path], limits: Limits, started: float, *, here: bool
    ) -> tuple[tuple[Status, str] | None, int]:
        """Why it had to be stopped, if it had to be, and its exit code. `EOFError`: no parent."""
        parent = self.parent = self.parent or self._started()
        _tell(parent, [*(str(path.resolve()) for path in files), here])
        while (answer := _heard(parent)) is None:
            check()
            if time.monotonic() - started > limits.timeout_s:
                self.close()
                return _late(limits), 1
        if here:
            return None, 0
        pid, stopped = answer[0], None
        try:
            while (answer := _heard(parent)) is None:
                check()
                stopped = stopped or _too_much(pid, limits, started)
                if stopped is not None:
                    _end_group(pid)
        finally:
            _end_group(pid)
        return stopped, os.waitstatus_to_exitcode(answer[1])

    def _started(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            return subprocess.Popen(
                # -P: nothing of the folder that we happen to be in is imported
                [sys.executable, "-P", "-m", WARM, self.method, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                env=environment(self.threads, self.compiled),
                # not a session of its own: that would leave the priority which this one was given
                process_group=0,
            )


def _tell(parent: subprocess.Popen[bytes], words: list[str | bool]) -> None:
    try:
        cast(IO[bytes], parent.stdin).write(json.dumps(words).encode() + b"\n")
    except OSError as error:
        raise EOFError from error


def _heard(parent: subprocess.Popen[bytes]) -> list[int] | None:
    """What the parent says within `POLL_S`, None if nothing. Raises `EOFError` where it ended."""
    stdout = cast(IO[bytes], parent.stdout)
    if not select.select([stdout], [], [], POLL_S)[0]:
        return None
    line = stdout.readline()
    if not line:
        raise EOFError
    heard: list[int] = json.loads(line)
    return heard


def environment(threads: int, compiled: Path | None = None) -> Mapping[str, str]:
    """The environment of a child: as ours, with so many native threads. `compiled`: as `Warm`."""
    ours = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | FORKS
    if compiled is not None:
        ours["NUMBA_CACHE_DIR"] = str(compiled)
    return ours | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def read_end(code: int, log: Path) -> tuple[Status, str]:
    """Status and reason of a child that ended by itself with the exit code `code`.

    Raises `DiskFull` where it ended for that: a benchmark without room can't go on.
    """
    if code == 0:
        return Status.OK, ""
    if code == -signal.SIGKILL:
        return Status.OUT_OF_MEMORY, "killed by the system, as it does when memory runs out"
    # C++ libraries abort when an allocation fails under the cap, Python ones raise
    if any(word in log.read_text(errors="replace") for word in HUNGRY):
        return Status.OUT_OF_MEMORY, "an allocation failed under the memory limit"
    if code < 0:
        name = signal.Signals(-code).name
        hint = ": built for another processor?" if name == "SIGILL" else ""
        return Status.CRASHED, f"killed by {name}{hint}"
    return _raised(last_line(log) or f"exit code {code}")


def _raised(said: str) -> tuple[Status, str]:
    """What the last line of a traceback, `module.Class: message`, means."""
    error, _, message = said.partition(": ")
    if error.endswith("DiskFull"):
        raise DiskFull(message)
    if NO_ROOM in said:
        raise DiskFull(
            f"no room left for what is measured ({said}): free space there, then run the same "
            "command again to resume"
        )
    missing = error.endswith("ModuleNotFoundError")
    return (Status.NOT_INSTALLED, message) if missing else (Status.FAILED, said)


def last_line(log: Path) -> str:
    """The last line that isn't empty of a child's output."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _late(limits: Limits) -> tuple[Status, str]:
    return Status.TIMEOUT, f"stopped after {limits.timeout_s:.0f} s"


def _too_much(pid: int, limits: Limits, started: float) -> tuple[Status, str] | None:
    """Status and reason if the process has to be stopped."""
    if time.monotonic() - started > limits.timeout_s:
        return _late(limits)
    if _resident(pid) > limits.memory_bytes:
        gigabytes = limits.memory_bytes / 2**30
        return Status.OUT_OF_MEMORY, f"stopped at {gigabytes:.2f} GiB of resident memory"
    return None


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _end_group(pid: int) -> None:
    """End what is left of a process and of those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
