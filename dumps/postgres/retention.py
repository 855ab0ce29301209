"""Which loaded runs stay, and the removal of the others without disturbing a reader.

The policy is a pure function of the runs; the removal is apart from it. A run is detached
concurrently, so that nobody queues, and only when no snapshot is left that sees it as the published
one: neither an open query nor a repeatable-read transaction loses rows midway.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2 import sql

from dumps.postgres.connection import Connection, connected
from dumps.postgres.history import seen_before
from dumps.postgres.partition import PARENTS, leaf
from dumps.postgres.schema import UNHURRIED, check_server, prepare_schema
from nearfield.errors import RunLocked, UsageError

KEEP = 3
"""Runs that stay loaded: the current one and what a rollback can go back to."""
WAIT_S = 10.0
"""How long the removal of one run waits for its readers."""
LOADER_LOCK = 0x6E656172
POLL_S = 0.05


@dataclass(frozen=True)
class KnownRun:
    """A run as the policy sees it. Times are seconds; None: never, or not yet."""

    run_id: int
    current: bool
    published: float | None
    loaded: float | None


@dataclass(frozen=True)
class Pruning:
    """What a removal did: runs dropped, kept, and still read (the next call drops those)."""

    dropped: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    still_read: list[int] = field(default_factory=list)


def surplus(runs: Sequence[KnownRun], keep: int, *, back: int | None) -> list[int]:
    """Ids of the runs that go so that `keep` stay, in order of id.

    Kept, in this order: the current run, `back`, the one that a rollback would go to, then
    whichever was published or loaded last. What is left of interrupted loads goes. Without a
    current run nothing that is whole goes.
    """
    whole = [run for run in runs if run.loaded is not None]
    current = next((run for run in whole if run.current), None)
    gone = [run for run in runs if run.loaded is None]
    if current is not None:

        def rank(run: KnownRun) -> tuple[bool, bool, float]:
            return run is current, run.run_id == back, max(run.published or 0.0, run.loaded or 0.0)

        gone += sorted(whole, key=rank, reverse=True)[max(1, keep) :]
    return sorted(run.run_id for run in gone)


def prune(dsn: str, keep: int = KEEP, *, dry_run: bool = False) -> Pruning:
    """Drop all but `keep` runs; `dry_run` only says which. Never the current one.

    Raises `UsageError` for keep < 1 and `RunLocked` while a load is under way.
    """
    if keep < 1:
        raise UsageError(f"expected --keep of at least 1 (the current run stays), got {keep}")
    with connected(dsn) as connection:
        with connection.cursor() as cursor:
            lock_loading(cursor)
            prepare_schema(cursor, create=False)
            if dry_run:
                # before it is undone: an old schema was changed for it
                known, gone = _surplus_now(cursor, keep)
                connection.rollback()
                return Pruning(gone, [r.run_id for r in known if r.run_id not in gone])
        connection.commit()
        return drop_surplus(connection, keep)


def lock_loading(cursor: Any) -> None:
    """Keep other loads and removals out until the connection ends, however it ends."""
    check_server(cursor)
    cursor.execute(UNHURRIED)
    cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOADER_LOCK,))
    if not cursor.fetchone()[0]:
        raise RunLocked(
            "another nearfield process loads into this database or prunes it: wait until it ends"
        )


def known_runs(cursor: Any) -> list[KnownRun]:
    """All runs of the database, by id; also those whose removal has begun."""
    cursor.execute(
        "SELECT r.run_id, c.run_id IS NOT NULL, extract(epoch FROM published_at)::float8,"
        " CASE WHEN NOT dropping THEN extract(epoch FROM loaded_at)::float8 END"
        " FROM nearfield.runs AS r LEFT JOIN nearfield.current_run AS c USING (run_id) ORDER BY 1"
    )
    return [KnownRun(*row) for row in cursor.fetchall()]


def _surplus_now(cursor: Any, keep: int) -> tuple[list[KnownRun], list[int]]:
    """All runs, and those that go."""
    known = known_runs(cursor)
    return known, surplus(known, keep, back=next(iter(seen_before(cursor)), None))


def drop_surplus(connection: Connection, keep: int, *, spared: int | None = None) -> Pruning:
    """Drop what `surplus` says, on a connection that holds the lock and no open transaction.

    The run `spared` stays on top of that.
    """
    with connection.cursor() as cursor:
        known, gone = _surplus_now(cursor, keep)
        connection.commit()
        gone = [run_id for run_id in gone if run_id != spared]
        whole = {run.run_id for run in known if run.loaded is not None}
        # a table may have one detaching that waits to be finished: what was begun comes first
        gone.sort(key=lambda run_id: run_id in whole)
        done = Pruning(kept=[run.run_id for run in known if run.run_id not in gone])
        for run_id in gone:
            if run_id in whole and not _mark(connection, run_id):
                done.kept.append(run_id)
            elif _drop(connection, run_id):
                done.dropped.append(run_id)
            else:
                done.still_read.append(run_id)
    return done


def discard(connection: Connection, run_id: int) -> None:
    """Remove a run that no reader can see; of an interrupted load only tables that it recorded."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT part || '_' || run_id || CASE part WHEN 'neighbours' THEN '_' || chunk"
            " ELSE '' END FROM nearfield.load_chunks WHERE run_id = %s"
            " UNION SELECT unnest(ARRAY['neighbours_', 'recordings_']) || run_id"
            " FROM nearfield.runs WHERE run_id = %s AND loaded_at IS NOT NULL",
            (run_id, run_id),
        )
        for (table,) in cursor.fetchall():
            cursor.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("nearfield", table))
            )
        cursor.execute("DELETE FROM nearfield.runs WHERE run_id = %s", (run_id,))
    connection.commit()


def _mark(connection: Connection, run_id: int) -> bool:
    """Make sure that the run can't be published any more; False when it just was."""
    with connection.cursor() as cursor:
        # publishing locks the same row
        cursor.execute("SELECT FROM nearfield.runs WHERE run_id = %s FOR UPDATE", (run_id,))
        cursor.execute("SELECT FROM nearfield.current_run WHERE run_id = %s", (run_id,))
        current = cursor.rowcount > 0
        if not current:
            cursor.execute("UPDATE nearfield.runs SET dropping = true WHERE run_id = %s", (run_id,))
    connection.commit()
    return not current


def _drop(connection: Connection, run_id: int) -> bool:
    """Whether the run is gone; False when it is still being read."""
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            if not _outlived_by_no_snapshot(cursor, run_id):
                return False
            limit = f"{WAIT_S * 1000:.0f}ms"
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (limit,))
            try:
                for parent in PARENTS:
                    _detach(cursor, parent, run_id)
            except (psycopg2.errors.QueryCanceled, psycopg2.errors.ObjectNotInPrerequisiteState):
                # read still; or another is, whose detaching waits to be finished
                return False
            finally:
                cursor.execute("SET statement_timeout = 0")
    finally:
        connection.autocommit = False
    # detached: no reader holds a lock on it, or can get one
    discard(connection, run_id)
    return True


def _outlived_by_no_snapshot(cursor: Any, run_id: int) -> bool:
    """Wait until no snapshot is left from when the run was published; False if one stays.

    A repeatable-read transaction that hasn't touched the run yet holds no lock that detaching would
    wait for. Other users' snapshots are visible to members of pg_read_all_stats alone.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        cursor.execute(
            "WITH replaced AS (SELECT min(transaction_id) AS xid FROM nearfield.publications"
            "  WHERE publication_id > (SELECT max(publication_id) FROM nearfield.publications"
            "                          WHERE run_id = %s))"
            " SELECT count(*) FROM pg_stat_activity, replaced"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND backend_xmin IS NOT NULL"
            # after a restore into another server the number is of its future, and says nothing
            " AND xid < pg_snapshot_xmax(pg_current_snapshot())"
            " AND age(backend_xmin) >= age(xid::xid)",
            (run_id,),
        )
        if cursor.fetchone()[0] == 0:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def _detach(cursor: Any, parent: str, run_id: int) -> None:
    cursor.execute(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(%s)",
        (f"nearfield.{parent}_{run_id}",),
    )
    attached = cursor.fetchone()
    if attached is None:
        return
    # a call that was interrupted leaves the detaching pending; it can then only be finished
    how = sql.SQL("FINALIZE" if attached[0] else "CONCURRENTLY")
    cursor.execute(
        sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
            sql.Identifier("nearfield", f"{parent}_all"), leaf(parent, run_id), how
        )
    )
