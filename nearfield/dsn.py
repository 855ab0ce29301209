"""Addresses of Postgres servers as text: what may be shown of one, and whether it holds a secret.

Refuses to connect.
"""

from nearfield.errors import UsageError

SECRET = frozenset(("password", "sslpassword"))


def masked(dsn: str) -> str:
    """The DSN as it may be shown: without password, in keyword form."""
    return " ".join(f"{key}={value}" for key, value in _parsed(dsn).items() if key not in SECRET)


def has_password(dsn: str) -> bool:
    """Whether the DSN carries a secret: other users of the machine see it in the process list."""
    return not SECRET.isdisjoint(_parsed(dsn))


def _parsed(dsn: str) -> dict[str, str]:
    import psycopg2
    from psycopg2.extensions import parse_dsn

    expected = (
        "Expected 'host=... dbname=... user=...' or postgresql://user@host/dbname "
        "(percent-encode special characters)"
    )
    try:
        parts: dict[str, str] = parse_dsn(dsn)
    except psycopg2.ProgrammingError as error:
        # libpq's message may quote the DSN, so it isn't repeated
        raise UsageError(f"the DSN can't be parsed. {expected}") from error
    if not all(port.isdigit() or not port for port in parts.get("port", "").split(",")):
        # a password with a slash in it is read as port and name of the database
        raise UsageError(f"the DSN names a port that is no number. {expected}")
    return parts
