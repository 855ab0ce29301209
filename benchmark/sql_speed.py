"""How long a question in SQL takes when the table is large: by an id, right after a load and later.

    python -m benchmark.dump_speed make RUN --n 4000000
    python -m benchmark.sql_speed RUN [--lookups 20000]

The run is loaded and published into its embedded server, which says rows/s, the peak memory of this
process and the most that a server process held for itself. Then random recordings are asked for by
one client over a unix socket, each statement prepared: ten neighbours with labels, all k as ids,
all k as they are stored. First as the load leaves the server (load); then after a restart with the
database's files out of the page cache, a tenth of the lookups (cold); then after the files were
read once (warm). Every lookup is kept. Prints Markdown. Owns this measurement.
"""

import argparse
import os
import platform
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2

from benchmark.copy_speed import recording_id
from dumps.postgres.load import LoadReport, load_run
from dumps.postgres.server import embedded
from nearfield.run import Run, open_run

QUESTIONS = {
    "10 nearest with labels": "SELECT * FROM nearfield.similar_recordings($1, 10)",
    "all k as ids": "SELECT * FROM nearfield.neighbours WHERE recording_id = $1",
    "all k as rows": (
        'SELECT neighbours, distances FROM nearfield.lists WHERE "row" ='
        ' (SELECT "row" FROM nearfield.recordings WHERE recording_id = $1)'
    ),
}
BLOCK = 8 << 20
WATCH_S = 0.2


def measured(run: Run, lookups: int) -> dict[str, Any]:
    """The load's report and memory, and microseconds of each lookup by state and question."""
    with embedded(run.postgres) as dsn, _watched() as held:
        report = load_run(run, dsn)
        if report.already_loaded:
            raise SystemExit(f"{run.path} is loaded already: remove {run.postgres} to measure it")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        taken = {"load": asked(dsn, run.config.n, lookups)}
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            version = cursor.fetchone()[0]
    files = [path for path in (run.postgres / "data").rglob("*") if path.is_file()]
    for path in files:
        _evict(path)
    with embedded(run.postgres) as dsn:
        taken["cold"] = asked(dsn, run.config.n, max(1, lookups // 10))
        for path in files:
            _touch(path)
        taken["warm"] = asked(dsn, run.config.n, lookups)
    return {
        "report": report,
        "own_bytes": own,
        "server_bytes": held[0],
        "stored_bytes": sum(path.stat().st_size for path in files if path.exists()),
        "taken_us": taken,
        "version": version,
    }


def asked(dsn: str, n: int, lookups: int) -> dict[str, list[float]]:
    """Microseconds of so many lookups of random recordings, by question, in one session."""
    rows = np.random.default_rng(len(dsn) + lookups).integers(0, n, lookups)
    taken: dict[str, list[float]] = {}
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for number, (name, statement) in enumerate(QUESTIONS.items()):
            cursor.execute(f"PREPARE look_{number} (text) AS {statement}")
            look = f"EXECUTE look_{number} (%s)"
            taken[name] = []
            for row in rows:
                started = time.perf_counter()
                cursor.execute(look, (recording_id(int(row)),))
                found = cursor.fetchall()
                taken[name].append(1e6 * (time.perf_counter() - started))
                if not found:
                    raise RuntimeError(f"{name}: no answer for row {row}")
    return taken


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The most bytes that any process of a Postgres server held for itself meanwhile, in [0]."""
    held, done = [0], threading.Event()

    def watch() -> None:
        while True:
            for process in psutil.process_iter(["name"]):
                with suppress(psutil.Error):
                    if process.info["name"] == "postgres":
                        used = process.memory_info()
                        held[0] = max(held[0], used.rss - used.shared)
            if done.wait(WATCH_S):
                break

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()


def _evict(path: Path) -> None:
    """Ask the system to forget the cached pages of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _touch(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("rb") as stream:
        while stream.read(BLOCK):
            pass


def markdown(run: Run, result: dict[str, Any]) -> str:
    """The result as sections of docs/results/four-million.md."""
    report: LoadReport = result["report"]
    lines = [
        f"{report.rows:,} x top-{run.config.columns} loaded and published in {report.seconds:.1f} s"
        f" ({report.rows / report.seconds:,.0f} recordings/s, {report.bytes / 2**30:.2f} GiB sent,"
        f" {result['stored_bytes'] / 2**30:.2f} GiB in the database's folder); peak memory of the"
        f" command {result['own_bytes'] / 2**20:,.0f} MiB, private memory of the largest server"
        f" process {result['server_bytes'] / 2**20:,.0f} MiB.",
        "",
        "| state | question | lookups | p50 us | p95 us | p99 us | p99.9 us | longest ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for state, questions in result["taken_us"].items():
        for name, taken in questions.items():
            *marks, longest = np.percentile(taken, [50, 95, 99, 99.9, 100])
            each = " | ".join(f"{mark:,.0f}" for mark in marks)
            lines.append(f"| {state} | {name} | {len(taken):,} | {each} | {longest / 1e3:.1f} |")
    lines += [
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at "
        f"the end; Postgres {result['version']}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Load, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--lookups", type=int, default=20_000)
    chosen = parser.parse_args()
    run = open_run(chosen.run)
    print(markdown(run, measured(run, chosen.lookups)))


if __name__ == "__main__":
    main()
