"""Runs the scan tasks: in this process, or in several, with progress and a clean way to stop.

Owns the worker processes. They are spawned, so they inherit no threads or locks; Ctrl-C reaches
only the parent, which tells them to stop; a worker whose parent has died stops by itself.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from nearfield.errors import Infrastructure
from nearfield.ingest.document_scan import Scanned, Task, Tick, scan
from nearfield.progress import Advance, progress

LOOK_EVERY_S = 0.5


class _Stopped(Exception):
    """The parent asked the workers to stop."""


class _Worker:
    """What a worker process shares with its parent."""

    done: "Synchronized[int]"
    stop: Event


def scan_all(tasks: Sequence[Task], work: Path, workers: int) -> list[Scanned]:
    """Scan every task, in `workers` processes; results in the order of the tasks.

    An error in one task ends all. Raises what `scan` raises, and `Infrastructure` when a worker
    process was killed.
    """
    total = sum(path.stat().st_size for task in tasks for path in task.paths)
    with progress("ingest", total >> 20, "MiB") as advance:
        tick = _Mebibytes(advance)
        if min(workers, len(tasks)) <= 1:
            return [scan(task, work, tick) for task in tasks]
        return _in_processes(tasks, work, min(workers, len(tasks)), tick)


class _Mebibytes:
    """Takes bytes and passes them on in MiB, without losing the remainders."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.left = advance, 0

    def __call__(self, read_bytes: int) -> None:
        whole, self.left = divmod(self.left + read_bytes, 1 << 20)
        self.advance(whole)


def _in_processes(tasks: Sequence[Task], work: Path, workers: int, tick: Tick) -> list[Scanned]:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (done, stop))
    try:
        with pool:
            futures = [pool.submit(_scan_in_worker, task, work) for task in tasks]
            try:
                _follow(futures, done, tick)
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise Infrastructure(
            "a worker process of ingest was killed, most likely for want of memory. "
            "Run the same command again with fewer --workers"
        ) from error


def _follow(futures: Sequence[Future[Scanned]], done: "Synchronized[int]", tick: Tick) -> None:
    pending, reported = set(futures), 0
    while pending:
        finished, pending = wait(pending, timeout=LOOK_EVERY_S)
        for future in finished:
            future.result()
        now = done.value
        tick(now - reported)
        reported = now


def _start_worker(done: "Synchronized[int]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Worker.done, _Worker.stop = done, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a pool's workers hold each other's queues open, so they would wait for work for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _scan_in_worker(task: Task, work: Path) -> Scanned:
    return scan(task, work, _tick)


def _tick(read_bytes: int) -> None:
    with _Worker.done.get_lock():
        _Worker.done.value += read_bytes
    if _Worker.stop.is_set():
        raise _Stopped
