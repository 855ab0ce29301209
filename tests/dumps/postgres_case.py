"""Runs that can be loaded, made without the builder, and questions to a test's database."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import pyarrow as pa

from dumps.matrix import write_matrix
from nearfield.run import Run, RunConfig, create_run
from nearfield.vectorset import Geometry, write_vector_set


def random_lists(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists that are well-formed, though nobody's nearest: never itself, none twice, ascending."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(n - 1, k, replace=False) + 1
    neighbours = rng.permuted((np.arange(n)[:, None] + steps) % n, axis=1)
    return neighbours.astype(np.int32), np.sort(rng.random((n, k), np.float32), axis=1)


def loadable_run(
    folder: Path,
    *,
    n: int = 300,
    k: int = 5,
    seed: int = 0,
    ids: list[Any] | None = None,
    labels: dict[str, list[Any]] | None = None,
) -> Run:
    """A vector set, a finished matrix and a passed verification in `folder`."""
    recordings = pa.table({"recording_id": ids or [f"id-{i}" for i in range(n)], **(labels or {})})
    vectors = np.random.default_rng(seed).random((n, 2), np.float32)
    made = write_vector_set(folder / "vectors", vectors, recordings, Geometry())
    config = RunConfig(str(made.path), made.fingerprint, n, 2, "l2", k, 0.9, "exact", seed)
    run = create_run(folder / "run", config)
    write_matrix(run, [(0, *random_lists(n, k, seed))], made.id_stream, attributes={})
    write_verdict(run)
    return run


def write_verdict(run: Run, **changes: Any) -> None:
    """A verification.json as `nearfield verify` writes it."""
    verdict = {
        "passed": True, "recall": 0.97, "recall_low": 0.96, "recall_high": 0.98, "asked": 0.9,
        "sample": 100, "matrix_sha256": run.finished_matrix().files["matrix.h5"].sha256,
    }  # fmt: skip
    run.verification.write_text(json.dumps(verdict | changes))


def ask(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement in a connection of its own; the rows, if it has any."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def server_processes(mark: str) -> list[psutil.Process]:
    """Processes of a server: those with `mark` (its socket folder) on their command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(mark in part for part in process.info["cmdline"] or [])
        or any(mark in part for part in _parent_command(process))
    ]


def _parent_command(process: psutil.Process) -> list[str]:
    try:
        parent = process.parent()
        return parent.cmdline() if parent and parent.name() == "postgres" else []
    except psutil.Error:
        return []


def sockets_of(dsn: str) -> str:
    """The folder of sockets in an embedded server's DSN."""
    return str(psycopg2.extensions.parse_dsn(dsn)["host"])
