"""One measured process: started, watched, ended in time and before it takes too much memory.

Owns the child's environment, time-out and memory cap, and how its end is read. A library's crash,
endless loop or hunger is a result here, never an error. Refuses to know what is measured.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.results.outcome import Status
from nearfield.errors import DiskFull

CHILD = "benchmark.runner.child"
POLL_S = 0.02
HUNGRY = ("MemoryError", "bad_alloc", "std::length_error", "Cannot allocate memory")
"""What a child says whose allocation failed."""
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)


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


def run_here(request: Path, log: Path, limits: Limits) -> Ended:
    """Run the child on `request` on this machine; its output goes to the file `log`."""
    started = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", CHILD, str(request), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(limits.threads),
            # not a session of its own: that would leave the priority which this one was given
            process_group=0,
        )
        try:
            stopped = _watched(child, limits, started)
        finally:
            _end(child)
    seconds = time.monotonic() - started
    if stopped is not None:
        return Ended(*stopped, seconds)
    return Ended(*read_end(child.returncode, log), seconds)


def environment(threads: int) -> Mapping[str, str]:
    """The environment of a child: as ours, with so many native threads."""
    ours = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
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
    missing = error.endswith("ModuleNotFoundError")
    return (Status.NOT_INSTALLED, message) if missing else (Status.FAILED, said)


def last_line(log: Path) -> str:
    """The last line that isn't empty of a child's output."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _watched(
    child: subprocess.Popen[bytes], limits: Limits, started: float
) -> tuple[Status, str] | None:
    """Wait for the end; status and reason if the child had to be stopped."""
    process = psutil.Process(child.pid)
    while True:
        try:
            child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() - started > limits.timeout_s:
                return Status.TIMEOUT, f"stopped after {limits.timeout_s:.0f} s"
            if _resident(process) > limits.memory_bytes:
                gigabytes = limits.memory_bytes / 2**30
                return Status.OUT_OF_MEMORY, f"stopped at {gigabytes:.2f} GiB of resident memory"
        else:
            return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the child and of the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
