"""Loading a finished run into Postgres, and publishing it.

Everything up to the publication is one transaction: the partitions are made, filled, given their
keys, checked and attached in it, so a load that dies at any point leaves nothing behind, and its
tables need neither log (where the server allows that) nor vacuum. Readers see the run when
publish.py moves the pointer.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psycopg2
from psycopg2 import sql

from dumps.postgres.connection import connected
from dumps.postgres.encode import HEADER, TRAILER, ListEncoder, record_type, recordings_csv
from dumps.postgres.gate import Verdict, verdict
from dumps.postgres.publish import drop_old_runs, publish
from dumps.postgres.schema import SCHEMA_VERSION, prepare_schema
from dumps.postgres.source import Source, opened_source
from nearfield.errors import DatabaseError, RunLocked
from nearfield.manifest import fingerprint, library_versions
from nearfield.progress import Advance, progress
from nearfield.run import Run

BLOCK_BYTES = 8 << 20
"""Encoded rows that are held at once; with what they are made from, a load takes about 30 MB."""
SAMPLE = 1000
LOADER_LOCK = 0x6E656172


@dataclass(frozen=True)
class LoadReport:
    """What a load did. `bytes`: what the copy sent; 0 and `already_loaded` if it was there."""

    run_id: int
    rows: int
    seconds: float
    bytes: int
    already_loaded: bool
    forced: bool
    dropped_runs: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Content:
    """What is to be loaded: identified, judged, and described for the table of runs."""

    fingerprint: str
    verdict: Verdict
    facts: dict[str, Any]


def load_run(run: Run, dsn: str, *, force: bool = False, labels: bool = True) -> LoadReport:
    """Load the run's matrix and recordings, check them, publish them, drop the oldest runs.

    The same matrix with the same labels isn't loaded twice, only published. `labels` False loads
    ids alone. Raises `QualityGate` for a run that isn't verified, unless `force`, `RunLocked` while
    another process loads into the database, `DatabaseError`, `DiskFull`, `DamagedArtefact`.
    Whatever it raises, readers keep what they had. Cost: O(n k); memory `BLOCK_BYTES` and n ids.
    """
    started = time.monotonic()
    sha256 = run.finished_matrix().files[run.matrix.name].sha256
    judged = verdict(run, sha256, force=force)
    with opened_source(run, labels=labels) as source, connected(dsn) as connection:
        content = _content(run, source, sha256, judged)
        with connection.cursor() as cursor:
            _lock(cursor)
            notes = prepare_schema(cursor)
            known = _judged_again(cursor, content)
            run_id, sent = (known, 0) if known else _load(cursor, run, source, content)
            connection.commit()
        publish(dsn, run_id)
        dropped = drop_old_runs(dsn)
    return LoadReport(
        run_id=run_id,
        rows=source.n,
        seconds=round(time.monotonic() - started, 3),
        bytes=sent,
        already_loaded=known is not None,
        forced=judged.forced,
        dropped_runs=tuple(dropped),
        notes=tuple(notes),
    )


def _content(run: Run, source: Source, sha256: str, judged: Verdict) -> _Content:
    labels = source.labels
    return _Content(
        fingerprint=fingerprint(
            schema=SCHEMA_VERSION, matrix=sha256, labels=labels and labels.fingerprint
        ),
        verdict=judged,
        facts={
            "run": asdict(run.config),
            "run_fingerprint": run.config.fingerprint,
            "matrix_sha256": sha256,
            "labels": labels.label_names if labels else [],
            "versions": library_versions(),
        },
    )


def _lock(cursor: Any) -> None:
    """Held until the connection ends, however it ends."""
    cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOADER_LOCK,))
    if not cursor.fetchone()[0]:
        raise RunLocked("another nearfield process loads into this database: wait until it ends")


def _judged_again(cursor: Any, content: _Content) -> int | None:
    """The id of the run if it is loaded already; its verdict is brought up to date."""
    judged = content.verdict
    cursor.execute(
        "UPDATE nearfield.runs SET recall = %s, recall_low = %s, asked = %s, forced = %s"
        " WHERE fingerprint = %s RETURNING run_id",
        (judged.recall, judged.recall_low, judged.asked, judged.forced, content.fingerprint),
    )
    found = cursor.fetchone()
    return None if found is None else int(found[0])


def _load(cursor: Any, run: Run, source: Source, content: _Content) -> tuple[int, int]:
    run_id = _register(cursor, run, source, content)
    with progress("load", source.n, "recordings") as advance:
        sent = copy_recordings(cursor, run_id, source)
        sent += copy_lists(cursor, run_id, source, advance)
    check_loaded(cursor, run_id, source)
    for parent in ("recordings", "neighbours"):
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                sql.Identifier("nearfield", f"{parent}_all"),
                leaf(parent, run_id),
                sql.Literal(run_id),
            )
        )
        # joins are planned by the statistics of the parent, which autovacuum never gathers
        cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("nearfield", f"{parent}_all")))
    return run_id, sent


def _register(cursor: Any, run: Run, source: Source, content: _Content) -> int:
    judged = content.verdict
    cursor.execute(
        "INSERT INTO nearfield.runs (fingerprint, n, k, space, recall, recall_low, asked, forced,"
        " facts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING run_id",
        (
            content.fingerprint,
            source.n,
            source.k,
            run.config.space,
            judged.recall,
            judged.recall_low,
            judged.asked,
            judged.forced,
            json.dumps(content.facts),
        ),
    )
    return int(cursor.fetchone()[0])


def leaf(parent: str, run_id: int) -> sql.Identifier:
    """The table that is a run's partition."""
    return sql.Identifier("nearfield", f"{parent}_{run_id}")


def copy_recordings(cursor: Any, run_id: int, source: Source) -> int:
    """Make and fill the run's partition of recordings; returns the bytes sent."""
    table = leaf("recordings", run_id)
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {table} (LIKE nearfield.recordings_all INCLUDING COMMENTS,"
            " CHECK (run_id = {run_id}));"
            "ALTER TABLE {table} ALTER labels SET STATISTICS 0"
        ).format(table=table, run_id=sql.Literal(run_id))
    )
    blocks = (csv for _, csv in recordings_csv(run_id, source.recordings()))
    sent = copy_in(cursor, sql.SQL("COPY {} FROM STDIN (FORMAT csv, FREEZE)").format(table), blocks)
    cursor.execute(
        sql.SQL('ALTER TABLE {0} ADD PRIMARY KEY ("row"), ADD UNIQUE (recording_id)').format(table)
    )
    return sent


def copy_lists(cursor: Any, run_id: int, source: Source, advance: Advance) -> int:
    """Make and fill the run's partition of neighbour lists; returns the bytes sent."""
    table = leaf("neighbours", run_id)
    create_lists(cursor, run_id, source.k)
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary, FREEZE)").format(table)
    sent = copy_in(cursor, copy, list_blocks(run_id, source, advance))
    cursor.execute(sql.SQL('ALTER TABLE {} ADD PRIMARY KEY ("row")').format(table))
    return sent


def create_lists(cursor: Any, run_id: int, k: int) -> None:
    """Make the run's empty partition of neighbour lists.

    The first check spares ATTACH a scan. NaN sorts above Infinity in Postgres, so the last one
    keeps out both.
    """
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {table} ("
            "  LIKE nearfield.neighbours_all INCLUDING STORAGE INCLUDING COMMENTS,"
            "  CHECK (run_id = {run_id}),"
            "  CHECK (cardinality(neighbours) = {k} AND cardinality(distances) = {k}),"
            "  CHECK ('-Infinity' < ALL (distances) AND 'Infinity' > ALL (distances))"
            ") WITH (toast_tuple_target = 8160);"
            "ALTER TABLE {table} ALTER neighbours SET STATISTICS 0,"
            "                    ALTER distances SET STATISTICS 0"
        ).format(table=leaf("neighbours", run_id), run_id=sql.Literal(run_id), k=sql.Literal(k))
    )


def list_blocks(run_id: int, source: Source, advance: Advance) -> Iterator[bytes]:
    """The matrix as binary COPY, in blocks of about `BLOCK_BYTES`."""
    # whole chunks of the file
    rows = max(1, BLOCK_BYTES // record_type(source.k).itemsize // 1024) * 1024
    encoder = ListEncoder(run_id, source.k, min(rows, source.n))
    yield HEADER
    for first, neighbours, distances in source.lists(rows):
        yield encoder.encode(first, neighbours, distances)
        advance(len(neighbours))
    yield TRAILER


class _Stream:
    """What COPY reads from: a block per call, however many bytes it has."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks
        self.sent = 0
        self.failure: BaseException | None = None

    def read(self, _size: int = -1) -> bytes:
        try:
            block = next(self.blocks, b"")
        except BaseException as failure:
            self.failure = failure
            raise
        self.sent += len(block)
        return block


def copy_in(cursor: Any, statement: sql.Composable, blocks: Iterator[bytes]) -> int:
    """Run COPY ... FROM STDIN on the blocks; returns their bytes. Raises what `blocks` raises."""
    stream = _Stream(blocks)
    try:
        cursor.copy_expert(statement, stream)
    except psycopg2.Error:
        # psycopg2 reports an error of the source, Ctrl-C among them, as one of the server
        if stream.failure is not None:
            raise stream.failure from None
        raise
    return stream.sent


def check_loaded(cursor: Any, run_id: int, source: Source) -> None:
    """Raise `DatabaseError` unless rows 0..n-1 are there and a random sample equals the file."""
    for parent in ("recordings", "neighbours"):
        cursor.execute(
            sql.SQL('SELECT count(*), min("row"), max("row") FROM {}').format(leaf(parent, run_id))
        )
        found, expected = cursor.fetchone(), (source.n, 0, source.n - 1)
        if found != expected:
            raise DatabaseError(f"expected (rows, first, last) {expected} of {parent}, got {found}")
    picked = np.random.default_rng(run_id).choice(source.n, min(SAMPLE, source.n), replace=False)
    rows = np.sort(picked)
    cursor.execute("SET LOCAL extra_float_digits = 1")
    cursor.execute(
        sql.SQL(
            'SELECT recording_id, neighbours, distances FROM {} JOIN {} USING ("row")'
            ' WHERE "row" = ANY (%s) ORDER BY "row"'
        ).format(leaf("recordings", run_id), leaf("neighbours", run_id)),
        (rows.tolist(),),
    )
    ids, neighbours, distances = zip(*cursor.fetchall(), strict=True)
    if not (
        list(ids) == source.ids(rows)
        and np.array_equal(np.array(neighbours, np.int32), source.file["neighbours"][rows])
        and np.array(distances, np.float32).tobytes() == source.file["distances"][rows].tobytes()
    ):
        raise DatabaseError(
            "what the database holds differs from the matrix file: nothing was published. "
            "Check the server's disk, then load again"
        )
