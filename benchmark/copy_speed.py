"""How fast a load is, against a plain COPY of the same bytes.

    python -m benchmark.copy_speed [--n 200000] [-k 100] [--pairs 5]

The ways to fill a table take turns, so that a busy machine slows all: the load's own filling of its
chunks (read HDF5, gate, encode, COPY, key) by two connections and by one; the same bytes, encoded
beforehand into a file, sent by one COPY into one table with the same checks; and into a table
without checks. Each time covers the commits, which force the tables to disk. Every repetition is
kept. The lists are random: no search is measured. Before them one whole `load_run`. Prints
Markdown. Owns this measurement; needs about 5 kB of disk per recording at k = 100.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa
from psycopg2 import sql

from dumps.matrix import Block, write_matrix
from dumps.postgres.chunks import fill
from dumps.postgres.load import load_run
from dumps.postgres.partition import (
    BLOCK_BYTES,
    Chunk,
    Copied,
    create_lists,
    leaf,
    list_blocks,
)
from dumps.postgres.retention import discard
from dumps.postgres.runs import runs
from dumps.postgres.server import embedded
from dumps.postgres.source import Source, opened_source
from nearfield.run import Run, RunConfig, create_run
from nearfield.vectorset import Geometry, write_vector_set

TRIAL = 1_000_000_000
"""Number of the trial's partition, which is never attached."""
ROWS = 8192


def random_run(folder: Path, n: int, k: int, *, seed: int = 0) -> Run:
    """A finished and verified run with well-formed random lists, titles and artists."""
    recordings = pa.table(
        {
            "recording_id": [recording_id(row) for row in range(n)],
            "title": [f"Title of the recording {row}" for row in range(n)],
            "artist": [f"Artist {row % 5_000}" for row in range(n)],
        }
    )
    vectors = np.zeros((n, 1), np.float32)
    made = write_vector_set(folder / "vectors", vectors, recordings, Geometry())
    config = RunConfig(str(made.path), made.fingerprint, n, 1, "l2", k, 0.9, "random", seed)
    run = create_run(folder / "run", config)
    manifest = write_matrix(run, _random_lists(n, k, seed), made.id_stream, attributes={})
    verdict = {"passed": True, "matrix_sha256": manifest.files[run.matrix.name].sha256}
    (run.folder / "verification.json").write_text(json.dumps(verdict))
    return run


def measured(run: Run, folder: Path, pairs: int) -> dict[str, Any]:
    """Seconds of each way and of one whole load; bytes sent and stored."""
    encoded = folder / "lists.copy"
    with embedded(run.postgres) as dsn:
        report = load_run(run, dsn)
        with opened_source(run, labels=False) as source:
            whole = Chunk(0, 0, source.n)
            with encoded.open("wb") as stream:
                stream.writelines(list_blocks(TRIAL, source, whole, Copied(), _ignore))
            ways = {
                "load": partial(_loaded, source=source, connections=2),
                "load, 1 connection": partial(_loaded, source=source, connections=1),
                "plain": partial(_plain, encoded=encoded, source=source),
                "plain, no checks": partial(_plain, encoded=encoded, source=None),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(pairs):
                for name, timed in ways.items():
                    seconds[name].append(timed(dsn))
        return {
            "n": run.config.n,
            "k": run.config.columns,
            "seconds": seconds,
            "bytes": encoded.stat().st_size,
            "load_s": report.seconds,
            "stored": next(each.bytes for each in runs(dsn) if each.run_id == report.run_id),
            "server": _asked(dsn, "SHOW server_version"),
        }


def _loaded(dsn: str, *, source: Source, connections: int) -> float:
    """Seconds of the load's own filling of the lists, keys and commits of its chunks included."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO nearfield.runs (fingerprint, n, k, space, asked, forced, facts)"
            " VALUES ('trial', %s, %s, 'l2', 0, true, '{}') RETURNING run_id",
            (source.n, source.k),
        )
        (trial,) = cursor.fetchone()
        # the recordings count as there already: only lists are measured
        cursor.execute(
            "INSERT INTO nearfield.load_chunks (run_id, part, chunk, first_row, rows, bytes)"
            " VALUES (%s, 'recordings', 0, 0, %s, 0)",
            (trial, source.n),
        )
        connection.commit()
        started = time.perf_counter()
        fill(dsn, trial, source, connections=connections)
        elapsed = time.perf_counter() - started
        discard(connection, trial)
    return elapsed


def _plain(dsn: str, *, encoded: Path, source: Source | None) -> float:
    """Seconds of one COPY of the same bytes with its commit, into a table without key.

    With the checks of a chunk where `source` is given, else without any.
    """
    table = leaf("neighbours", TRIAL, 0)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        if source is None:
            like = "CREATE TABLE {} (LIKE nearfield.neighbours_all INCLUDING STORAGE)"
            cursor.execute(sql.SQL(like).format(table))
        else:
            create_lists(cursor, TRIAL, source.k, Chunk(0, 0, source.n))
        copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary, FREEZE)").format(table)
        with encoded.open("rb") as stream:
            cursor.copy_expert(copy, stream, BLOCK_BYTES)
        connection.commit()
        elapsed = time.perf_counter() - started
        cursor.execute(sql.SQL("DROP TABLE {}").format(table))
        connection.commit()
    return elapsed


def _asked(dsn: str, statement: str, *values: Any) -> Any:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone()[0]
    finally:
        connection.close()


def _random_lists(n: int, k: int, seed: int) -> Iterator[Block]:
    random = np.random.default_rng(seed)
    for first in range(0, n, ROWS):
        own = np.arange(first, min(n, first + ROWS))[:, None]
        steps = random.choice(n - 1, k, replace=False) + 1
        neighbours = random.permuted((own + steps) % n, axis=1)
        distances = np.sort(random.random(neighbours.shape, np.float32), axis=1)
        for row in np.flatnonzero((np.diff(distances, axis=1) == 0).any(axis=1)):
            neighbours[row] = neighbours[row][np.lexsort((neighbours[row], distances[row]))]
        yield first, neighbours.astype(np.int32), distances


def recording_id(row: int) -> str:
    """The public id of a row of a random run."""
    return f"{row * 2654435761 % 2**32:08x}-0000-4000-8000-{row:012x}"


def _ignore(_amount: int) -> None:
    pass


def markdown(result: dict[str, Any]) -> str:
    """The result as a section of docs/results/postgres-load.md."""
    n, bytes_sent = result["n"], result["bytes"]
    lines = [
        f"## {n:,} x top-{result['k']}: {bytes_sent / 2**20:,.0f} MiB of binary COPY",
        "",
        "| way | seconds, each repetition | median | rows/s | MiB/s |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in result["seconds"].items():
        middle = statistics.median(seconds)
        each = ", ".join(f"{value:.2f}" for value in seconds)
        lines.append(
            f"| {name} | {each} | {middle:.2f} | {n / middle:,.0f} |"
            f" {bytes_sent / 2**20 / middle:,.0f} |"
        )
    own, *others = result["seconds"].values()
    for name, seconds in zip(list(result["seconds"])[1:], others, strict=True):
        ratios = sorted(a / b for a, b in zip(own, seconds, strict=True))
        lines += ["", f"load / {name}, by turn: median {statistics.median(ratios):.2f}"]
        lines[-1] += f" ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    lines += [
        "",
        f"Whole load (recordings, lists, keys, checks, publication): {result['load_s']:.1f} s; "
        f"{result['stored'] / 2**20:,.0f} MiB stored with keys, "
        f"{result['stored'] / n:,.0f} bytes per recording.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[200_000])
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args()
    for n in chosen.n:
        with tempfile.TemporaryDirectory() as name:
            result = measured(random_run(Path(name), n, chosen.k), Path(name), chosen.pairs)
        print(markdown(result), end="\n\n", flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("psycopg2-binary", "h5py", "numpy"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at "
        f"the end; Postgres {result['server']}, Python {platform.python_version()}, {versions}."
    )


if __name__ == "__main__":
    main()
