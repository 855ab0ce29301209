"""The schema in a database: made on the first load, brought up to date by later programs.

The statements are in deploy/postgres/: migrations/NNNN_*.sql, each of which leads from version
NNNN - 1 to NNNN, and readers.sql; this file decides which of them run.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from nearfield.errors import DatabaseError, UsageError

SCHEMA_VERSION = 3
OLDEST_SERVER = 140000
SCHEMA_LOCK = 0x6E656173
READ_ROLE = "nearfield_read"
UNHURRIED = "SET statement_timeout = 0; SET idle_session_timeout = 0; SET lock_timeout = 0"
"""A server's limits for its other users would end a load or a check midway."""
LOCK_TIMEOUT = "10s"
"""How long a migration waits for a lock. Those so far take none that readers hold."""


def prepare_schema(cursor: Any, *, create: bool = True) -> list[str]:
    """Make the schema, or migrate it to this program's version, in the open transaction.

    Returns notes for the operator. Readers keep what they have throughout. `create` False raises
    `UsageError` where there is no schema yet. Raises `UsageError` for a server older than 14, for a
    schema `nearfield` that isn't ours, and for a newer version of it.
    """
    check_server(cursor)
    found = schema_version(cursor)
    if found != SCHEMA_VERSION:
        # held to the end of the transaction: of two commands at once, one migrates
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        found = schema_version(cursor)
    if found is None and not create:
        raise UsageError("nothing was loaded into this database yet: nearfield load RUN")
    if found != SCHEMA_VERSION:
        _check_owner(cursor, found)
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
        for version, statements in migrations(found or 0):
            cursor.execute(statements)
            cursor.execute("UPDATE nearfield.schema_version SET version = %s", (version,))
        cursor.execute("SET LOCAL lock_timeout = DEFAULT")
    notes = [f"the schema was version {found}: now {SCHEMA_VERSION}"] if _old(found) else []
    return notes + _prepare_readers(cursor)


def check_version(cursor: Any) -> None:
    """For commands that only read: raise `UsageError` unless the schema has our version."""
    found = schema_version(cursor)
    if found is None:
        raise UsageError("nothing was loaded into this database yet: nearfield load RUN")
    if _old(found):
        raise UsageError(
            f"the schema nearfield in this database has version {found}, this program reads "
            f"{SCHEMA_VERSION}. Any of load, publish, rollback and prune brings it up to date "
            "without touching the data"
        )


def schema_version(cursor: Any) -> int | None:
    """The version in the database, None where there is no schema.

    Raises `UsageError` for a schema that isn't ours or is newer than this program.
    """
    cursor.execute(
        "SELECT to_regnamespace('nearfield'), (SELECT relkind FROM pg_class"
        " WHERE oid = to_regclass('nearfield.schema_version'))"
    )
    schema, kind = cursor.fetchone()
    if schema is None:
        return None
    if kind != "r":
        raise UsageError(
            "this database has a schema `nearfield` that nearfield didn't make: choose another "
            "database, or rename that schema"
        )
    cursor.execute("SELECT version FROM nearfield.schema_version")
    found = int(cursor.fetchone()[0])
    if found > SCHEMA_VERSION:
        raise UsageError(
            f"the schema nearfield in this database has version {found}, this program knows "
            f"versions up to {SCHEMA_VERSION}: use a newer nearfield. Nothing was changed"
        )
    return found


def migrations(found: int, last: int = SCHEMA_VERSION) -> Iterator[tuple[int, str]]:
    """(version, statements) of each migration after version `found` up to `last`, in order."""
    folder = files("deploy") / "postgres" / "migrations"
    for script in sorted(folder.iterdir(), key=lambda entry: entry.name):
        version = int(script.name.partition("_")[0])
        if found < version <= last:
            yield version, script.read_text(encoding="utf-8")


def _old(found: int | None) -> bool:
    return found is not None and found < SCHEMA_VERSION


def check_server(cursor: Any) -> None:
    """Raise `UsageError` for a server that is too old, before it is told what it doesn't know."""
    version = cursor.connection.server_version
    if version < OLDEST_SERVER:
        raise UsageError(f"expected Postgres 14 or newer, the server is {version // 10000}")


def _check_owner(cursor: Any, found: int | None) -> None:
    """Migrating takes the owner; without this the server would name some object of ours instead."""
    if found is None:
        return
    cursor.execute(
        "SELECT pg_get_userbyid(nspowner), pg_has_role(nspowner, 'USAGE')"
        " FROM pg_namespace WHERE nspname = 'nearfield'"
    )
    owner, allowed = cursor.fetchone()
    if not allowed:
        raise DatabaseError(
            f"bringing the schema nearfield from version {found} to {SCHEMA_VERSION} takes its "
            f"owner: connect as {owner}"
        )


def _prepare_readers(cursor: Any) -> list[str]:
    """Let the read role in; where it's missing, make it, or note that an administrator must."""
    cursor.execute(
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s), rolsuper OR rolcreaterole"
        " FROM pg_roles WHERE rolname = current_user",
        (READ_ROLE,),
    )
    exists, may_create = cursor.fetchone()
    if not exists and not may_create:
        return [
            f"this user may not create roles, so there is no {READ_ROLE} yet and only the owner "
            "reads. An administrator: CREATE ROLE nearfield_read; then load again"
        ]
    if not exists:
        cursor.execute(f"CREATE ROLE {READ_ROLE} NOLOGIN")
    cursor.execute(
        "SELECT has_schema_privilege(%s, 'nearfield', 'USAGE')"
        " AND has_table_privilege(%s, 'nearfield.history', 'SELECT')",
        (READ_ROLE, READ_ROLE),
    )
    if not cursor.fetchone()[0]:
        cursor.execute((files("deploy") / "postgres" / "readers.sql").read_text(encoding="utf-8"))
    return []
