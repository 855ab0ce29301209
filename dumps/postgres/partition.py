"""The tables that a run fills: chunks of rows, made, copied into, given keys, checked, attached.

A run's lists are `neighbours_N`, partitioned by row into chunks `neighbours_N_0`, ...; its
recordings are one table `recordings_N`, as they are looked up by an id that no range of rows knows.
Every function works in the caller's open transaction and commits nothing. Refuses to decide which
run is loaded or seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
MOST_CHUNKS = 8
"""Every statement opens all chunks of all loaded runs to plan, so they are few."""
LEAST_CHUNK_ROWS = 1 << 18


class ArrivedOtherwise(DatabaseError):
    """The tables don't hold what was sent: no use in going on from them."""


@dataclass(frozen=True)
class Chunk:
    """Rows [first, last) of the lists of a run: one table, one transaction."""

    number: int
    first: int
    last: int


@dataclass
class Copied:
    """What one COPY sent, and the range of the distances in it."""

    bytes: int = 0
    distance_min: float | None = None
    distance_max: float | None = None

    def widen(self, least: float, greatest: float) -> None:
        """Make the range hold these two."""
        low, high = self.distance_min, self.distance_max
        self.distance_min = least if low is None else min(low, least)
        self.distance_max = greatest if high is None else max(high, greatest)


def plan_chunks(n: int, rows: int | None = None) -> list[Chunk]:
    """Chunks that cover rows 0..n-1; from n alone, so that an interrupted load finds them again."""
    size = rows or max(LEAST_CHUNK_ROWS, -(-n // MOST_CHUNKS // 1024) * 1024)
    return [
        Chunk(number, first, min(n, first + size)) for number, first in enumerate(range(0, n, size))
    ]


def leaf(parent: str, run_id: int, chunk: int | None = None) -> sql.Identifier:
    """The table that is a run's partition, or a chunk of it."""
    name = f"{parent}_{run_id}" if chunk is None else f"{parent}_{run_id}_{chunk}"
    return sql.Identifier("nearfield", name)


def copy_recordings(cursor: Any, run_id: int, source: Source, advance: Advance) -> Copied:
    """Make and fill the run's partition of recordings, with its keys; counts none of them."""
    table = leaf("recordings", run_id)
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {table} (LIKE nearfield.recordings_all INCLUDING COMMENTS,"
            " CHECK (run_id = {run_id}));"
            "ALTER TABLE {table} ALTER labels SET STATISTICS 0,"
            ' ALTER run_id SET STATISTICS 10, ALTER "row" SET STATISTICS 10,'
            " ALTER recording_id SET STATISTICS 10"
        ).format(table=table, run_id=sql.Literal(run_id))
    )

    def blocks() -> Iterator[bytes]:
        for _, csv in recordings_csv(run_id, source.recordings(), source.removed):
            advance(0)
            yield csv

    copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv, FREEZE)").format(table)
    sent = copy_in(cursor, copy, blocks())
    cursor.execute(
        sql.SQL('ALTER TABLE {0} ADD PRIMARY KEY ("row"), ADD UNIQUE (recording_id)').format(table)
    )
    return Copied(sent)


def copy_lists(cursor: Any, run_id: int, source: Source, chunk: Chunk, advance: Advance) -> Copied:
    """Make and fill one chunk of the run's lists, with its key."""
    table = leaf("neighbours", run_id, chunk.number)
    create_lists(cursor, run_id, source.k, chunk)
    copied = Copied()
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary, FREEZE)").format(table)
    copied.bytes = copy_in(cursor, copy, list_blocks(run_id, source, chunk, copied, advance))
    cursor.execute(sql.SQL('ALTER TABLE {} ADD PRIMARY KEY ("row")').format(table))
    return copied


def create_lists(cursor: Any, run_id: int, k: int, chunk: Chunk) -> None:
    """Make an empty chunk of neighbour lists.

    The first two checks spare ATTACH its scans. NaN sorts above Infinity in Postgres, so the last
    one keeps out both.
    """
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {table} ("
            "  LIKE nearfield.neighbours_all INCLUDING STORAGE INCLUDING COMMENTS,"
            "  CONSTRAINT of_run CHECK (run_id = {run_id}),"
            '  CONSTRAINT of_chunk CHECK ("row" >= {first} AND "row" < {last}),'
            "  CHECK (cardinality(neighbours) = {k} AND cardinality(distances) = {k}),"
            "  CHECK ('-Infinity' < ALL (distances) AND 'Infinity' > ALL (distances))"
            ") WITH (toast_tuple_target = 8160);"
            "ALTER TABLE {table} ALTER neighbours SET STATISTICS 0,"
            "                    ALTER distances SET STATISTICS 0,"
            '                    ALTER run_id SET STATISTICS 10, ALTER "row" SET STATISTICS 10'
        ).format(
            table=leaf("neighbours", run_id, chunk.number),
            run_id=sql.Literal(run_id),
            k=sql.Literal(k),
            first=sql.Literal(chunk.first),
            last=sql.Literal(chunk.last),
        )
    )


def list_blocks(
    run_id: int, source: Source, chunk: Chunk, copied: Copied, advance: Advance
) -> Iterator[bytes]:
    """The chunk's lists as binary COPY, in blocks of about `BLOCK_BYTES`; notes their distances."""
    # whole chunks of the file
    rows = max(1, BLOCK_BYTES // record_type(source.k).itemsize // 1024) * 1024
    encoder = ListEncoder(run_id, source.k, min(rows, chunk.last - chunk.first))
    yield HEADER
    for first, neighbours, distances in source.lists(rows, chunk.first, chunk.last):
        # each list ascends, which the source has checked
        copied.widen(float(distances[:, 0].min()), float(distances[:, -1].max()))
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


def join_chunks(cursor: Any, run_id: int, chunks: list[Chunk]) -> None:
    """Make the run's lists one table out of its chunks; scans none of them."""
    whole = leaf("neighbours", run_id)
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {} (LIKE nearfield.neighbours_all INCLUDING STORAGE INCLUDING COMMENTS,"
            ' CONSTRAINT of_run CHECK (run_id = {})) PARTITION BY RANGE ("row");'
            "ALTER TABLE {} ALTER neighbours SET STATISTICS 0, ALTER distances SET STATISTICS 0,"
            ' ALTER run_id SET STATISTICS 10, ALTER "row" SET STATISTICS 10'
        ).format(whole, sql.Literal(run_id), whole)
    )
    for chunk in chunks:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                whole,
                leaf("neighbours", run_id, chunk.number),
                sql.Literal(chunk.first),
                sql.Literal(chunk.last),
            )
        )


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


def add_reverse_index(cursor: Any, run_id: int, chunk: Chunk) -> None:
    """Index which lists of a chunk name a row, unless that is there. Readers of the chunk go on."""
    name = f"neighbours_{run_id}_{chunk.number}"
    cursor.execute(
        sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING gin (neighbours)").format(
            sql.Identifier(f"{name}_reverse"), sql.Identifier("nearfield", name)
        )
    )


def check_loaded(cursor: Any, run_id: int, source: Source) -> None:
    """Raise `ArrivedOtherwise` unless every row is there and a random sample equals the file."""
    live = source.live()
    first, last = source.rows_at(np.array([0, live - 1])).tolist()
    for parent in PARENTS:
        cursor.execute(
            sql.SQL('SELECT count(*), min("row"), max("row") FROM {}').format(leaf(parent, run_id))
        )
        found, expected = cursor.fetchone(), (live, first, last)
        if found != expected:
            raise ArrivedOtherwise(
                f"expected (rows, first, last) {expected} of {parent}, got {found}: load again"
            )
    picked = np.random.default_rng(run_id).choice(live, min(SAMPLE, live), replace=False)
    rows = source.rows_at(np.sort(picked))
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
        raise ArrivedOtherwise(
            "what the database holds differs from the matrix file: nothing was published. "
            "Check the server's disk, then load again"
        )
