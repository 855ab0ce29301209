"""The schema in a database: made on the first load, recognised on later ones.

The statements are in deploy/postgres/*.sql; this file decides which of them run.
"""

from importlib.resources import files
from typing import Any

from nearfield.errors import UsageError

SCHEMA_VERSION = 1
OLDEST_SERVER = 140000
READ_ROLE = "nearfield_read"


def prepare_schema(cursor: Any) -> list[str]:
    """Make the schema if the database has none, in the open transaction; returns notes.

    Raises `UsageError` for a server older than 14, for a schema `nearfield` that isn't ours, and
    for another version of it.
    """
    _check_server(cursor)
    cursor.execute("SELECT to_regnamespace('nearfield'), to_regclass('nearfield.schema_version')")
    schema, version_table = cursor.fetchone()
    if schema is None:
        cursor.execute(_statements("schema.sql"))
    elif version_table is None:
        raise UsageError(
            "this database has a schema `nearfield` that nearfield didn't make: choose another "
            "database, or rename that schema"
        )
    else:
        _check_version(cursor)
    return _prepare_readers(cursor)


def _check_server(cursor: Any) -> None:
    version = cursor.connection.server_version
    if version < OLDEST_SERVER:
        raise UsageError(f"expected Postgres 14 or newer, the server is {version // 10000}")


def _check_version(cursor: Any) -> None:
    cursor.execute("SELECT version FROM nearfield.schema_version")
    found = cursor.fetchone()[0]
    if found != SCHEMA_VERSION:
        raise UsageError(
            f"the schema nearfield in this database has version {found}, this program knows "
            f"version {SCHEMA_VERSION}: "
            + ("use a newer nearfield" if found > SCHEMA_VERSION else "use another database")
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
    cursor.execute("SELECT has_schema_privilege(%s, 'nearfield', 'USAGE')", (READ_ROLE,))
    if not cursor.fetchone()[0]:
        cursor.execute(_statements("readers.sql"))
    return []


def _statements(name: str) -> str:
    return (files("deploy") / "postgres" / name).read_text(encoding="utf-8")
