"""What readers notice of a publication: latency of lookups before, during and after.

    python -m benchmark.publish_latency [--n 200000] [-k 100] [--readers 4] [--pause-ms 5]

Two runs are loaded. Readers, each with a session of its own as `nearfield_read`, look up ten
neighbours of random recordings, prepared, with a pause after each (0: as fast as they can, which
measures how they wait for the processors); beside them stand a repeatable-read
transaction and one that is idle with locks on what it has read. Meanwhile: nothing (before), then
publications and rollbacks in turn (during), a load of a third run with its publication (load),
nothing again (after). Every answer is compared with the lists of the runs: one that no run gives,
or an error, fails the measurement. Prints Markdown. Owns this measurement.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psycopg2

from benchmark.copy_speed import random_run, recording_id
from dumps.postgres.gates import Limits
from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.publish import publish, rollback
from dumps.postgres.server import embedded
from nearfield.run import Run

ANYTHING = LoadOptions(limits=Limits(0, 1, 1, 1))
"""The lists are random, so all of them change."""
PHASES = ("before", "during", "load", "after")
SHOWN = 10
LOOK = """SET ROLE nearfield_read;
PREPARE look AS SELECT distance FROM nearfield.similar_recordings($1, 10)"""


@dataclass
class Watch:
    """What the readers share. `truth`: per run, the first distances of every row."""

    dsn: str
    truth: list[Any]
    pause_s: float = 0
    phase: str = PHASES[0]
    stopped: bool = False
    wrong: list[str] = field(default_factory=list)
    taken_us: dict[str, list[float]] = field(default_factory=lambda: {p: [] for p in PHASES})

    def read(self, seed: int) -> None:
        """Look up random recordings until stopped; what is wrong is noted."""
        rows = np.random.default_rng(seed)
        try:
            with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
                connection.autocommit = True
                cursor.execute(LOOK)
                while not self.stopped:
                    row = int(rows.integers(len(self.truth[0])))
                    phase, started = self.phase, time.perf_counter()
                    cursor.execute("EXECUTE look(%s)", (recording_id(row),))
                    found = cursor.fetchall()
                    self.taken_us[phase].append(1e6 * (time.perf_counter() - started))
                    self.run_that_says(row, found)
                    time.sleep(self.pause_s)
        except Exception as error:  # whatever ends a reader is what the measurement is about
            self.wrong.append(repr(error))

    def run_that_says(self, row: int, found: list[tuple[float]]) -> int:
        """Which run gives this answer; notes an answer that none does."""
        answer = np.array([distance for (distance,) in found], np.float32)
        for number, lists in enumerate(self.truth):
            if np.array_equal(lists[row], answer):
                return number
        self.wrong.append(f"row {row}: {answer}")
        return -1


def measured(
    folder: Path, n: int, k: int, *, readers: int = 4, seconds: float = 20, pause_s: float = 0
) -> dict[str, Any]:
    """Microseconds of every lookup by phase, milliseconds of every move of the pointer.

    Raises `RuntimeError` when a reader saw what no run holds, or an error.
    """
    runs = [random_run(folder / str(seed), n, k, seed=seed) for seed in range(3)]
    with embedded(folder / "postgres") as dsn:
        ids = [load_run(run, dsn, options=ANYTHING).run_id for run in runs[:2]]
        watch = Watch(dsn, [_first_distances(run) for run in runs], pause_s)
        moves_ms: list[float] = []
        with _reading(watch, readers), _standing_by(watch):
            time.sleep(seconds)
            watch.phase, deadline = "during", time.monotonic() + seconds
            while time.monotonic() < deadline:
                for move in (rollback, lambda dsn: publish(dsn, ids[1], limits=ANYTHING.limits)):
                    started = time.perf_counter()
                    move(dsn)
                    moves_ms.append(1e3 * (time.perf_counter() - started))
            watch.phase = "load"
            load = load_run(runs[2], dsn, options=ANYTHING)
            watch.phase = "after"
            time.sleep(seconds)
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            server = cursor.fetchone()[0]
    if watch.wrong:
        raise RuntimeError(f"{len(watch.wrong)} wrong answers, the first: {watch.wrong[0]}")
    return {
        "n": n,
        "k": k,
        "readers": readers,
        "pause_s": pause_s,
        "moves_ms": moves_ms,
        "load_s": load.seconds,
        "taken_us": watch.taken_us,
        "server": server,
    }


@contextmanager
def _reading(watch: Watch, readers: int) -> Iterator[None]:
    threads = [threading.Thread(target=watch.read, args=(seed,)) for seed in range(readers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        watch.stopped = True
        for thread in threads:
            thread.join()


@contextmanager
def _standing_by(watch: Watch) -> Iterator[None]:
    """A repeatable-read transaction that must see one run throughout, and an idle transaction."""
    with (
        closing(psycopg2.connect(watch.dsn)) as snapshot,
        closing(psycopg2.connect(watch.dsn)) as idle,
    ):
        snapshot.set_session(isolation_level="REPEATABLE READ")
        with snapshot.cursor() as kept, idle.cursor() as other:
            seen = []
            for cursor in (kept, other):
                cursor.execute(LOOK)
                cursor.execute("EXECUTE look(%s)", (recording_id(7),))
                seen.append(watch.run_that_says(7, cursor.fetchall()))
            yield
            for row in (7, 8):
                kept.execute("EXECUTE look(%s)", (recording_id(row),))
                if watch.run_that_says(row, kept.fetchall()) != seen[0]:
                    watch.wrong.append("a repeatable-read transaction saw two runs")


def _first_distances(run: Run) -> Any:
    with h5py.File(run.matrix) as file:
        return file["distances"][:, :SHOWN]


def markdown(result: dict[str, Any]) -> str:
    """The result as a section of docs/results/postgres-publish.md."""
    moves = np.array(result["moves_ms"])
    lines = [
        f"## {result['n']:,} x top-{result['k']}, {result['readers']} readers, "
        f"{1e3 * result['pause_s']:g} ms between lookups",
        "",
        "| meanwhile | lookups | p50 us | p99 us | p99.9 us | longest ms |",
        "|---|---|---|---|---|---|",
    ]
    for phase, taken in result["taken_us"].items():
        median, p99, p999, longest = np.percentile(taken, [50, 99, 99.9, 100])
        lines.append(
            f"| {phase} | {len(taken):,} | {median:.0f} | {p99:.0f} | {p999:.0f} |"
            f" {longest / 1e3:.1f} |"
        )
    lines += [
        "",
        f"{len(moves)} publications (with gates) and rollbacks: median {np.median(moves):.0f} ms, "
        f"longest {moves.max():.0f} ms. The load of a third run took {result['load_s']:.1f} s. "
        "No answer was wrong, failed or mixed.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at "
        f"the end; Postgres {result['server']}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20, help="before, during and after, each")
    parser.add_argument("--pause-ms", type=float, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measured(
            Path(name),
            chosen.n,
            chosen.k,
            readers=chosen.readers,
            seconds=chosen.seconds,
            pause_s=chosen.pause_ms / 1e3,
        )
    print(markdown(result))


if __name__ == "__main__":
    main()
