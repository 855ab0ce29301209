"""Which loaded run readers see: a one-row pointer, moved by one UPDATE.

Owns publishing, going back, and the number of runs that are kept. Refuses to load.
"""

from dataclasses import dataclass

import psycopg2
from psycopg2 import errors as pg
from psycopg2 import sql

from dumps.postgres.connection import Connection, connected
from nearfield.errors import UsageError

KEEP = 3
"""Runs that stay loaded: the current one and what a rollback can go back to."""
DETACH_TIMEOUT = "10s"


@dataclass(frozen=True)
class PublishedRun:
    """The run that readers see: n recordings, k neighbours each, recall as it was measured."""

    run_id: int
    fingerprint: str
    n: int
    k: int
    space: str
    recall: float | None
    forced: bool


def publish(dsn: str, run_id: int) -> PublishedRun:
    """Make a loaded run the one that readers see. Raises `UsageError` for a run not loaded.

    Never waits for readers: open snapshots keep the run that they began with.
    """
    with connected(dsn) as connection:
        _point_to(connection, run_id, stamp=True)
        connection.commit()
        return _current(connection)


def rollback(dsn: str) -> PublishedRun:
    """Go back to the run that was published before the current one; again goes further back.

    Raises `UsageError` when no earlier run is loaded.
    """
    with connected(dsn) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT run_id FROM nearfield.runs WHERE published_at < (SELECT r.published_at"
                " FROM nearfield.current_run JOIN nearfield.runs AS r USING (run_id))"
                " ORDER BY published_at DESC LIMIT 1"
            )
            found = cursor.fetchone()
        if found is None:
            raise UsageError("there is no earlier published run to go back to")
        _point_to(connection, found[0], stamp=False)
        connection.commit()
        return _current(connection)


def current(dsn: str) -> PublishedRun | None:
    """The run that readers see, or None before the first is published."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM nearfield.current_run")
        pointed = cursor.fetchone()
        return _current(connection) if pointed and pointed[0] is not None else None


def drop_old_runs(dsn: str, keep: int = KEEP) -> list[int]:
    """Drop all but the current run and the `keep` - 1 others published last; returns their ids.

    Detaching concurrently waits for open readers without making new ones queue; a run that is
    still being read after `DETACH_TIMEOUT` is left for the next call.
    """
    with connected(dsn) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT run_id FROM nearfield.runs ORDER BY"
                " run_id = (SELECT run_id FROM nearfield.current_run) DESC NULLS LAST,"
                " published_at DESC NULLS LAST OFFSET %s",
                (max(1, keep),),
            )
            surplus = [row[0] for row in cursor.fetchall()]
        return [run_id for run_id in surplus if _drop(connection, run_id)]


def _point_to(connection: Connection, run_id: int, *, stamp: bool) -> None:
    with connection.cursor() as cursor:
        try:
            cursor.execute("UPDATE nearfield.current_run SET run_id = %s", (run_id,))
        except pg.ForeignKeyViolation as error:
            raise UsageError(f"run {run_id} isn't loaded in this database") from error
        if stamp:
            cursor.execute(
                "UPDATE nearfield.runs SET published_at = clock_timestamp() WHERE run_id = %s",
                (run_id,),
            )


def _current(connection: Connection) -> PublishedRun:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT run_id, fingerprint, n, k, space, recall, forced"
            " FROM nearfield.runs JOIN nearfield.current_run USING (run_id)"
        )
        return PublishedRun(*cursor.fetchone())


def _drop(connection: Connection, run_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, false)", (DETACH_TIMEOUT,))
        try:
            for parent in ("neighbours", "recordings"):
                _detach(cursor, parent, run_id)
                leaf = sql.Identifier("nearfield", f"{parent}_{run_id}")
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(leaf))
        except psycopg2.errors.QueryCanceled:
            return False
        finally:
            cursor.execute("RESET statement_timeout")
        cursor.execute("DELETE FROM nearfield.runs WHERE run_id = %s", (run_id,))
    return True


def _detach(cursor: Connection, parent: str, run_id: int) -> None:
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
            sql.Identifier("nearfield", f"{parent}_all"),
            sql.Identifier("nearfield", f"{parent}_{run_id}"),
            how,
        )
    )
