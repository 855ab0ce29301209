"""Filling a run's tables by several connections, a committed chunk at a time.

A chunk is made, filled, keyed and entered in `load_chunks` in one transaction: it is there whole or
not at all, needs neither log (where the server allows that) nor vacuum, and a load that was
interrupted goes on with the chunks that aren't there. Refuses to decide which run is filled.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg2
from psycopg2 import sql

from dumps.postgres.connection import Connection, connected
from dumps.postgres.delta import LoadedBase, copy_changed
from dumps.postgres.partition import (
    PARENTS,
    Chunk,
    Copied,
    add_reverse_index,
    copy_lists,
    copy_recordings,
    leaf,
    plan_chunks,
)
from dumps.postgres.schema import UNHURRIED
from dumps.postgres.source import Source
from nearfield.errors import DatabaseError
from nearfield.progress import Advance, progress

RECORDINGS, LISTS = PARENTS
Task = Callable[[Connection], None]


@dataclass(frozen=True)
class Filled:
    """What filling did: bytes sent now, and rows of lists that an earlier load had left."""

    bytes: int
    kept_rows: int


@dataclass(frozen=True)
class _Target:
    """What is filled, from where; `base` has the lists that didn't change."""

    run_id: int
    source: Source
    base: LoadedBase | None


class _Stopped(Exception):
    """Another connection has failed."""


@dataclass
class _Work:
    """Tasks that several connections share; the first failure stops all of them."""

    tasks: list[Task] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: list[Connection] = field(default_factory=list)
    failure: BaseException | None = None

    def take(self) -> Task | None:
        with self.lock:
            return self.tasks.pop(0) if self.tasks and self.failure is None else None

    def stop(self, failure: BaseException) -> None:
        """Keep the first failure and end what the other connections are doing."""
        with self.lock:
            if self.failure is not None:
                return
            self.failure = failure
            for connection in self.connections:
                # closed already, or its server is gone: nothing left to end
                with suppress(psycopg2.Error):
                    connection.cancel()

    def counting(self, advance: Advance) -> Advance:
        """`advance` for all connections; raises in those that go on after a failure.

        A COPY that was cancelled on the server doesn't notice while it has something to send.
        """

        def advanced(amount: int) -> None:
            with self.lock:
                if self.failure is not None:
                    raise _Stopped
                advance(amount)

        return advanced

    @contextmanager
    def joined(self, connection: Connection) -> Iterator[None]:
        with self.lock:
            self.connections.append(connection)
        try:
            yield
        finally:
            with self.lock:
                self.connections.remove(connection)


def fill(
    dsn: str,
    run_id: int,
    source: Source,
    *,
    connections: int,
    chunk_rows: int | None = None,
    base: LoadedBase | None = None,
) -> Filled:
    """Fill what is missing of the run's recordings and lists, each chunk committed on its own.

    `base`: a loaded run from which unchanged lists are copied inside the server.

    Raises what stops the first of the connections; finished chunks stay. Memory: about 40 MB a
    connection, whatever n is.
    """
    chunks = plan_chunks(source.n, chunk_rows)
    with connected(dsn) as connection, connection.cursor() as cursor:
        done = finished_chunks(cursor, run_id)
        missing = [chunk for chunk in chunks if (LISTS, chunk.number) not in done]
    sent: list[int] = []
    left = sum(source.live(chunk.first, chunk.last) for chunk in missing)
    work = _Work()
    with progress("load", left, "recordings") as advance:
        target = _Target(run_id, source, base)
        into = partial(_fill_chunk, target=target, advance=work.counting(advance))
        if (RECORDINGS, 0) not in done:
            work.tasks.append(partial(into, chunk=None, sent=sent))
        work.tasks += [partial(into, chunk=chunk, sent=sent) for chunk in missing]
        _work_off(dsn, work, connections)
    return Filled(sum(sent), source.live() - left)


def index_reverse(dsn: str, run_id: int, n: int, *, connections: int) -> None:
    """Give every chunk of a run the index that answers which lists name a row; again converges."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT chunk, first_row, first_row + rows FROM nearfield.load_chunks"
            " WHERE run_id = %s AND part = %s ORDER BY chunk",
            (run_id, LISTS),
        )
        chunks = [Chunk(*row) for row in cursor.fetchall()]
    if not chunks:
        raise DatabaseError(
            f"run {run_id} was loaded by an older nearfield, without chunks to index: load it anew "
            "under another name, or ask without the index"
        )
    work = _Work()
    with progress("reverse index", n, "recordings") as advance:
        counted = work.counting(advance)

        def index(connection: Connection, chunk: Chunk) -> None:
            with connection.cursor() as cursor:
                add_reverse_index(cursor, run_id, chunk)
            connection.commit()
            counted(chunk.last - chunk.first)

        work.tasks += [partial(index, chunk=chunk) for chunk in chunks]
        _work_off(dsn, work, connections)


def finished_chunks(cursor: Any, run_id: int) -> dict[tuple[str, int], tuple[int, int]]:
    """(part, chunk): (first row, rows) of the chunks that are committed."""
    cursor.execute(
        "SELECT part, chunk, first_row, rows FROM nearfield.load_chunks WHERE run_id = %s",
        (run_id,),
    )
    return {(part, chunk): (first, rows) for part, chunk, first, rows in cursor.fetchall()}


def is_continuable(cursor: Any, run_id: int, source: Source, chunk_rows: int | None) -> bool:
    """Whether the chunks that an interrupted load has left are those of the plan, and whole."""
    expected = {
        (LISTS, chunk.number): (chunk.first, source.live(chunk.first, chunk.last))
        for chunk in plan_chunks(source.n, chunk_rows)
    }
    expected[RECORDINGS, 0] = (0, source.live())
    return all(
        expected.get((part, number)) == found and _counted(cursor, part, run_id, number) == found[1]
        for (part, number), found in finished_chunks(cursor, run_id).items()
    )


def _counted(cursor: Any, part: str, run_id: int, number: int) -> int | None:
    """Rows by the server's own count; None where the table isn't there."""
    table = leaf(part, run_id, None if part == RECORDINGS else number)
    cursor.execute("SELECT to_regclass(%s)", (table.as_string(cursor),))
    if cursor.fetchone()[0] is None:
        return None
    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
    return int(cursor.fetchone()[0])


def _fill_chunk(
    connection: Connection,
    *,
    target: _Target,
    chunk: Chunk | None,
    advance: Advance,
    sent: list[int],
) -> None:
    """Fill one chunk of lists, or (None) the recordings, and commit."""
    run_id, source, base = target.run_id, target.source, target.base
    with connection.cursor() as cursor:
        if chunk is None:
            copied = copy_recordings(cursor, run_id, source, advance)
            _record(cursor, run_id, RECORDINGS, Chunk(0, 0, source.n), source.live(), copied)
        else:
            if base is None:
                copied = copy_lists(cursor, run_id, source, chunk, advance)
            else:
                copied = copy_changed(cursor, run_id, source, chunk, base, advance)
            live = source.live(chunk.first, chunk.last)
            _record(cursor, run_id, LISTS, chunk, live, copied)
    connection.commit()
    sent.append(copied.bytes)


def _record(cursor: Any, run_id: int, part: str, chunk: Chunk, rows: int, copied: Copied) -> None:
    cursor.execute(
        "INSERT INTO nearfield.load_chunks"
        " (run_id, part, chunk, first_row, rows, bytes, distance_min, distance_max)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            run_id,
            part,
            chunk.number,
            chunk.first,
            rows,
            copied.bytes,
            copied.distance_min,
            copied.distance_max,
        ),
    )


def _work_off(dsn: str, work: _Work, connections: int) -> None:
    """Run the tasks, each on one of so many connections. Raises the first failure."""
    count = max(1, min(connections, len(work.tasks)))
    with ThreadPoolExecutor(count) as pool:
        try:
            # the first may be at work, and wouldn't end by itself, before the last has begun
            workers = [pool.submit(_worker, dsn, work) for _ in range(count)]
            wait(workers, return_when=FIRST_EXCEPTION)
        except BaseException as interruption:  # Ctrl-C
            work.stop(interruption)
            raise
    if work.failure is not None:
        raise work.failure


def _worker(dsn: str, work: _Work) -> None:
    try:
        with connected(dsn) as connection, work.joined(connection):
            with connection.cursor() as cursor:
                cursor.execute(UNHURRIED)
            connection.commit()
            while task := work.take():
                task(connection)
    except BaseException as failure:
        work.stop(failure)
        raise
