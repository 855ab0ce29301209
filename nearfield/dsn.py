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

    try:
        parts: dict[str, str] = parse_dsn(dsn)
    except psycopg2.ProgrammingError as error:
        # libpq's message may quote the DSN, so it isn't repeated
        raise UsageError(
            "the DSN can't be parsed. Expected 'host=... dbname=... user=...' or "
            "postgresql://user@host/dbname (percent-encode special characters)"
        ) from error
    return parts
