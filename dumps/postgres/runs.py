"""What a database holds: every run, whether readers see it, and what it takes. Changes nothing."""

from dataclasses import dataclass
from typing import Literal

from dumps.postgres.connection import connected
from dumps.postgres.retention import LOADER_LOCK
from dumps.postgres.schema import check_version

State = Literal["current", "loaded", "loading", "interrupted", "being dropped"]


@dataclass(frozen=True)
class LoadedRun:
    """A run in the database. Times are ISO 8601 in UTC; `bytes` counts tables and keys.

    `since`: since when readers see it, None for the others. `rows`: lists that are there; fewer
    than n while a load is under way or interrupted. `failed_gates`: at their last measurement.
    """

    run_id: int
    state: State
    since: str | None
    n: int
    k: int
    space: str
    recall: float | None
    recall_low: float | None
    asked: float
    forced: bool
    failed_gates: tuple[str, ...]
    rows: int
    bytes: int
    matrix_created: str | None
    loaded: str | None
    published: str | None
    fingerprint: str


def runs(dsn: str) -> list[LoadedRun]:
    """All runs, by id. Raises `UsageError` where nothing was ever loaded. Reads no list."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        check_version(cursor)
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute(_QUESTION, {"lock": LOADER_LOCK, "iso": 'YYYY-MM-DD"T"HH24:MI:SS"Z"'})
        return [
            LoadedRun(**{**row, "failed_gates": tuple(row["failed_gates"])})
            for row in (
                dict(zip((column.name for column in cursor.description), values, strict=True))
                for values in cursor.fetchall()
            )
        ]


_QUESTION = """
SELECT
    r.run_id,
    CASE
        WHEN c.run_id IS NOT NULL THEN 'current'
        WHEN r.dropping THEN 'being dropped'
        WHEN r.loaded_at IS NOT NULL THEN 'loaded'
        -- a removal holds the lock, too; then this is said of what it hasn't removed yet
        WHEN EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %(lock)s AND classid = 0
        ) THEN 'loading'
        ELSE 'interrupted'
    END AS state,
    CASE WHEN c.run_id IS NOT NULL THEN to_char((
        SELECT max(p.published_at) FROM nearfield.publications AS p WHERE p.run_id = r.run_id
    ), %(iso)s) END AS since,
    r.n, r.k, r.space, r.recall, r.recall_low, r.asked, r.forced,
    ARRAY(
        SELECT g.gate FROM nearfield.gates AS g
        WHERE g.run_id = r.run_id AND NOT g.passed ORDER BY 1
    ) AS failed_gates,
    -- runs of schema version 1 have no chunks
    CASE WHEN r.loaded_at IS NOT NULL THEN r.n ELSE coalesce((
        SELECT sum(l.rows) FROM nearfield.load_chunks AS l
        WHERE l.run_id = r.run_id AND l.part = 'neighbours'
    ), 0)::int END AS rows,
    coalesce((
        SELECT sum(pg_total_relation_size(t.oid)) FROM pg_class AS t
        WHERE t.relnamespace = 'nearfield'::regnamespace AND t.relkind = 'r'
        AND t.relname ~ ('^(neighbours|recordings)_' || r.run_id || '(_[0-9]+)?$')
    ), 0)::bigint AS bytes,
    r.facts ->> 'matrix_created' AS matrix_created,
    to_char(r.loaded_at, %(iso)s) AS loaded,
    to_char(r.published_at, %(iso)s) AS published,
    r.fingerprint
FROM nearfield.runs AS r LEFT JOIN nearfield.current_run AS c USING (run_id)
ORDER BY r.run_id
"""
