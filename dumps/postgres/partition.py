"""The two partitions that a run fills: made, copied into, given keys, checked, attached.

Every function works in the caller's open transaction and commits nothing. Refuses to decide which
run is loaded or seen.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg2
from psycopg2 import sql

from dumps.postgres.encode import HEADER, TRAILER, ListEncoder, record_type, recordings_csv
from dumps.postgres.source import Source
from nearfield.errors import DatabaseError
from nearfield.progress import Advance

BLOCK_BYTES = 8 << 20
"""Encoded rows that are held at once, beside as much again of the lists and of their bytes."""
SAMPLE = 1000
PARENTS = ("recordings", "neighbours")


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


def attach(cursor: Any, run_id: int) -> None:
    """Make the run's tables partitions of the common ones; readers don't see them yet."""
    for name in PARENTS:
        parent = sql.Identifier("nearfield", f"{name}_all")
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                parent, leaf(name, run_id), sql.Literal(run_id)
            )
        )
        # joins are planned by the statistics of the parent, which autovacuum never gathers
        cursor.execute(sql.SQL("ANALYZE {}").format(parent))


def check_loaded(cursor: Any, run_id: int, source: Source) -> None:
    """Raise `DatabaseError` unless rows 0..n-1 are there and a random sample equals the file."""
    for parent in PARENTS:
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
