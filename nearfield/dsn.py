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
    if _torn(dsn):
        raise UsageError(f"the DSN's password or port can't be as it stands. {expected}")
    return parts


def _torn(dsn: str) -> bool:
    """Whether an address was cut inside of a password: libpq takes what follows a raw / or @ in it
    for host, port or database, where it would be shown.
    """
    scheme, _, rest = dsn.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return False
    authority, _, path = rest.partition("/")
    places = authority.rpartition("@")[2].rpartition("]")[2].partition("?")[0]
    ports = [place.partition(":")[2] for place in places.split(",")]
    return (
        authority.count("@") > 1
        or "@" in path.partition("?")[0]
        or any(port and not port.isdigit() for port in ports)
    )
