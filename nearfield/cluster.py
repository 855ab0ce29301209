"""The Dask cluster that heavy steps run on: a local one by default, any scheduler by address.

Owns how tasks are submitted (retries, progress, failures listed by name) and how many native
threads a task may use. The cluster is disposable: what matters lies in files.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory
from typing import Any

import dask.config
from distributed import Client, Future, LocalCluster, as_completed

from nearfield.clusters.connection import connection
from nearfield.errors import Infrastructure, ShardFailed, UsageError
from nearfield.kept_memory import KEPT
from nearfield.machine import available_cores
from nearfield.progress import progress
from nearfield.traffic import Traffic, counted

RETRIES = 1
CONNECT_TIMEOUT_S = 30
WORKER_PRELOAD = """
import logging, signal
# only the driver handles Ctrl-C: it then closes the workers in order
signal.signal(signal.SIGINT, signal.SIG_IGN)
# a failed task is reported once, at the end, by `run_tasks`
logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
# after Ctrl-C the scratch folder may be gone before a worker empties its part of it
logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
"""
LOCAL_SETTINGS = {
    "distributed.worker.preload": [WORKER_PRELOAD],
    # native calls hold the interpreter for long: silence isn't death
    "distributed.scheduler.worker-ttl": "30 minutes",
    # nobody reads its profile, and twice a second is enough to ask an event loop how it does: an
    # idle worker and its scheduler took 6% of a core, now 2%
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
}


@dataclass(frozen=True)
class ClusterOptions:
    """`scheduler`: an address or a connection file (see `nearfield.clusters.connection`), or
    `workers` local processes (default: one per core).
    """

    workers: int | None = None
    scheduler: str | None = None

    @property
    def this_machine(self) -> bool:
        """Whether this machine does it, in whatever way is fastest."""
        return self.workers is None and self.scheduler is None


@dataclass(frozen=True)
class Task:
    """One unit of work: `function(*arguments, threads=...)`, pure, named for its messages.

    workers: addresses of those that do it best, and are waited for; another does it where they are
    gone.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    workers: tuple[str, ...] = ()


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Client]:
    """A client of the asked cluster; a local one is stopped at the end.

    Raises `UsageError` for nonsense and `Infrastructure` when the scheduler can't be reached.
    """
    if options.scheduler is not None:
        if options.workers is not None:
            raise UsageError("expected either --workers or --scheduler, got both")
        yield from _remote(options.scheduler)
        return
    workers = available_cores() if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"expected at least one worker, got {workers}")
    # after Ctrl-C while it starts, our scratch folder is gone before Dask tries to empty it
    logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
    with (
        _environment_kept(),
        TemporaryDirectory(prefix="nearfield-dask-") as scratch,
        # the scheduler has no option for its folder and would leave one behind in /tmp
        dask.config.set(_settings(options) | {"temporary-directory": scratch}),
        ExitStack() as stack,
    ):
        with _interrupts_held():
            local = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    # a single task may have all of the machine's (index_build/whole.py)
                    memory_limit=1.0 if options.this_machine else "auto",
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    local_directory=scratch,
                    silence_logs="ERROR",
                )
            )
        yield stack.enter_context(Client(local))


def _settings(options: ClusterOptions) -> dict[str, Any]:
    """Of a local cluster. A single task that may have all memory gives back what it has freed."""
    if options.this_machine:
        return LOCAL_SETTINGS
    place = "distributed.nanny.pre-spawn-environ"
    return LOCAL_SETTINGS | {f"{place}.{name}": value for name, value in KEPT.items()}


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for the block; processes started in it never see one.

    A worker that is still importing would end with a traceback on the user's terminal.
    """
    resource_tracker.ensure_running()  # else Dask starts it in the block, and it lifts the mask
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """A nanny leaves OMP_NUM_THREADS=1 and the like in the environment of its parent: undo that."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _remote(named: str) -> Iterator[Client]:
    address, security = connection(named)
    # that a scheduler is gone is said once, by what asks it, and without tracebacks
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, security=security)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise Infrastructure(
            f"expected a Dask scheduler at {address}; it can't be reached ({error}). "
            "Start one, or leave --scheduler away to use this machine"
        ) from error
    with client:
        if not workers_of(client):
            raise Infrastructure(f"the scheduler at {address} has no workers: start some")
        yield client


Begun = dict[Future, Task]
"""Tasks that the cluster was given, by what will tell of their end."""


def begin_tasks(client: Client, tasks: Sequence[Task]) -> Begun:
    """Give the cluster tasks that nobody waits for; `run_tasks` counts what they moved."""
    threads = _threads_per_task(client, len(tasks)) if tasks else 0
    return {_submitted(client, task, threads): task for task in tasks}


def run_tasks(
    client: Client, title: str, tasks: Sequence[Task], *, beside: Begun | None = None
) -> Traffic:
    """Run all tasks; what they make lies in files, so of what they return only traffic counts.

    The bytes that finished tasks read and wrote; those of tries that failed aren't known. `beside`:
    what was begun before, whose workers are busy; what ends meanwhile is taken out and counted.
    Whether it failed is a matter of those who need it.

    Native threads are shared out: a task gets more when there are fewer tasks than cores. Tasks
    start in their order, and none is handed out before a worker is free for it, one of its own if
    it names some: Dask would let tasks wait at one worker while another has none. One failed task
    doesn't stop the others: all run, then `ShardFailed` lists the failed ones.
    """
    traffic = Traffic()
    if not tasks:
        return traffic
    threads = _threads_per_task(client, len(tasks))
    failed: list[str] = []
    waiting, running, others = deque(tasks), Begun(), {} if beside is None else beside
    completed = as_completed(others)

    def fill() -> None:
        free = _Free(client, [*running.values(), *others.values()])
        while (task := free.next_of(waiting, anyway=not running)) is not None:
            future = _submitted(client, task, threads)
            running[future] = task
            completed.add(future)

    with progress(title, len(tasks), "tasks") as advance:
        fill()
        for future in completed:
            task = running.pop(future, None)
            if future.status == "finished":
                traffic += future.result()
            elif task is not None:
                failed.append(f"{task.name}: {future.exception()}")
            future.release()
            others.pop(future, None)
            if task is not None:
                advance(1)
            fill()
            if not running:
                break
    if failed:
        raise ShardFailed(
            f"{len(failed)} of {len(tasks)} tasks failed after {RETRIES + 1} tries:\n  "
            + "\n  ".join(failed)
            + "\nWhat was finished is kept: run the same command again to try the rest"
        )
    return traffic


def _submitted(client: Client, task: Task, threads: int) -> Future:
    return client.submit(
        _counting, task.function, *task.arguments, threads=threads, retries=RETRIES,
        pure=False, workers=task.workers or None, allow_other_workers=bool(task.workers),
    )  # fmt: skip


def _counting(function: Callable[..., Any], *arguments: Any, threads: int) -> Traffic:
    with counted() as traffic:
        function(*arguments, threads=threads)
    return traffic


def _threads_per_task(client: Client, tasks: int) -> int:
    """All cores of the cluster, shared out among the tasks that will run at once.

    A task gets at most the cores of the smallest host: it may land there.
    """
    workers = workers_of(client)
    if not workers:
        raise Infrastructure(
            "expected workers on the cluster, all are gone at the moment: see their logs, then run "
            "the same command again to resume"
        )
    one_per_host = {worker["host"]: address for address, worker in workers.items()}
    cores = on_workers(client, available_cores, workers=list(one_per_host.values()))
    if not cores:
        raise Infrastructure("no worker answers at the moment: run the same command again")
    share = int(sum(cores.values())) // min(len(workers), tasks)
    return max(1, min(share, *cores.values()))


class _Free:
    """How many more tasks the workers of the moment can begin: it grows when a worker joins."""

    def __init__(self, client: Client, running: Iterable[Task]) -> None:
        self.threads = {
            address: int(worker["nthreads"]) for address, worker in workers_of(client).items()
        }
        self.running = list(running)

    def next_of(self, waiting: deque[Task], *, anyway: bool) -> Task | None:
        """Take the first task that can begin out of those that wait, if there is one.

        anyway: the first one, where no worker is free: there will be one.
        """
        if not waiting:
            return None
        if len(self.running) < sum(self.threads.values()):
            for task in waiting:
                if self._can_begin(task):
                    return self._taken(task, waiting)
        return self._taken(waiting[0], waiting) if anyway else None

    def _taken(self, task: Task, waiting: deque[Task]) -> Task:
        waiting.remove(task)
        self.running.append(task)
        return task

    def _can_begin(self, task: Task) -> bool:
        threads = sum(self.threads.get(worker, 0) for worker in task.workers)
        busy = sum(other.workers == task.workers for other in self.running)
        return threads == 0 or busy < threads


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker of the moment, by address.

    `client.scheduler_info()` would do, but it reads its answer from a cache that the client
    refreshes meanwhile without the workers: now and then a full cluster looks empty. Raises
    `Infrastructure` when the scheduler is gone.
    """
    with _answering(client):
        known = client.sync(client.scheduler.identity, n_workers=-1)
    workers: dict[str, dict[str, Any]] = known["workers"]
    return workers


def on_workers(
    client: Client,
    function: Callable[..., Any],
    *arguments: Any,
    workers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What `function` returns on each of the workers (None: on all), by address.

    Those that are gone, or fail, are left out. Raises `Infrastructure` without a scheduler.
    """
    with _answering(client):
        answers: dict[str, Any] = client.run(
            function, *arguments, workers=workers, on_error="ignore"
        )
    return answers


@contextmanager
def _answering(client: Client) -> Iterator[None]:
    try:
        if client.status in ("closing", "closed"):
            raise ConnectionError("the connection was given up")
        yield
    except (OSError, RuntimeError) as error:  # the latter from a client that is giving up
        raise Infrastructure(
            f"the scheduler doesn't answer any more ({error}): see its log, start it again, then "
            "run the same command again to resume"
        ) from error


def workers_by_host(client: Client) -> list[tuple[str, ...]]:
    """Addresses of the workers of each host."""
    hosts: dict[str, list[str]] = {}
    for address, worker in workers_of(client).items():
        hosts.setdefault(worker["host"], []).append(address)
    return [tuple(addresses) for addresses in hosts.values()]
