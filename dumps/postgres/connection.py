"""A connection to Postgres, and what its errors mean to the person who ran the command.

Owns the translation of psycopg2's errors into ours, none of which shows a password. Refuses any
statement of its own.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg2
from psycopg2 import errors as pg

from nearfield.dsn import masked
from nearfield.errors import DatabaseError, DiskFull, InputRejected, UsageError

Connection = Any
APPLICATION = "nearfield"
UNKNOWN_RECORDING, WRONG_ARGUMENT, NOTHING_PUBLISHED = "NF001", "NF002", "NF003"
"""SQLSTATEs that the functions in deploy/postgres/migrations raise."""


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """Yield a connection that is closed at the end; what isn't committed by then is rolled back.

    Raises `UsageError` for a DSN that can't be parsed and `DatabaseError` for all that the server
    refuses or breaks off, with what to do next.
    """
    shown = masked(dsn)
    try:
        connection = psycopg2.connect(dsn, application_name=APPLICATION, client_encoding="UTF8")
    except psycopg2.OperationalError as error:
        _explain_refusal(error, shown)
    try:
        yield connection
    except psycopg2.Error as error:
        _explain(error, shown)
    finally:
        connection.close()


def _explain_refusal(error: psycopg2.OperationalError, shown: str) -> NoReturn:
    text = " ".join(str(error).split())
    if re.search(r"password authentication failed|no password supplied", text):
        advice = (
            "Put the right password into ~/.pgpass (chmod 600), a service file, or the "
            "environment variable PGPASSWORD"
        )
    elif re.search(r'(database|role) ".*" does not exist', text):
        advice = "Create it, or correct the DSN"
    elif "permission denied for database" in text:
        advice = "To connect, a role needs: GRANT CONNECT ON DATABASE dbname TO role"
    elif "no pg_hba.conf entry" in text:
        advice = "The server's pg_hba.conf must let this user in from this host"
    else:
        advice = "Is the server running, and are host and port right?"
    raise DatabaseError(f"no connection to Postgres at {shown}: {text}. {advice}") from error


def _explain(error: psycopg2.Error, shown: str) -> NoReturn:
    text = " ".join(str(error.diag.message_primary or error).split()).rstrip(".")
    where = f"Postgres at {shown}"
    if error.pgcode in (UNKNOWN_RECORDING, WRONG_ARGUMENT):
        raise InputRejected(text) from error
    if error.pgcode == NOTHING_PUBLISHED:
        raise UsageError(f"{text}. Load one with: nearfield load RUN") from error
    if isinstance(error, pg.DiskFull):
        raise DiskFull(
            f"{where} has no room left: {text}. What was published before is untouched: free "
            "space on the server, then run the same command again"
        ) from error
    if isinstance(error, pg.InsufficientPrivilege):
        raise DatabaseError(f"{where} refuses: {text}. {_missing_right(error)}") from error
    if isinstance(error, pg.DuplicateTable):
        raise DatabaseError(
            f"{where} holds a table that nearfield didn't make: {text}. Rename or drop it, then "
            "run the same command again"
        ) from error
    if isinstance(error, pg.UndefinedTable | pg.InvalidSchemaName | pg.UndefinedFunction):
        raise UsageError(
            f"{where} holds no nearfield tables ({text}). Load a run with: nearfield load RUN"
        ) from error
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or not error.pgcode:
        raise DatabaseError(
            f"{where} broke off: {text}. Nothing half-done is visible; run the command again"
        ) from error
    raise DatabaseError(f"{where} answered: {text} (SQLSTATE {error.pgcode})") from error


def _missing_right(error: psycopg2.Error) -> str:
    if "for database" in str(error):
        return (
            "To load, a role needs: GRANT CREATE, TEMPORARY ON DATABASE dbname TO role (an "
            "administrator runs that once; see deploy/postgres/roles.sql)"
        )
    return (
        "To load, connect as the role that owns the schema nearfield; to read, as a member of "
        "nearfield_read: GRANT nearfield_read TO role"
    )
