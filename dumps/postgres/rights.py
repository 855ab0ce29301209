"""What the server at a DSN is and what its user may do there: for `nearfield doctor`."""

from dataclasses import dataclass

from dumps.postgres.connection import connected
from dumps.postgres.schema import READ_ROLE


@dataclass(frozen=True)
class Rights:
    """Server, user and rights. `schema_version` is None where nothing was ever loaded, or where the
    schema is somebody else's; `schema_owner` where there is none.

    temporary: the user may make temporary tables, with which updated runs are loaded. read_role:
    what readers are members of is there, or can be made. sees_readers: what others read shows.
    """

    server_version: str
    database: str
    user: str
    superuser: bool
    create_schema: bool
    temporary: bool
    read_role: bool
    sees_readers: bool
    schema_owner: str | None
    owns_schema: bool
    schema_version: int | None

    @property
    def may_load(self) -> bool:
        """Whether `nearfield load` may make its tables."""
        return self.superuser or (self.owns_schema if self.schema_owner else self.create_schema)


def rights(dsn: str) -> Rights:
    """Ask the server. Raises `DatabaseError` when it can't be reached."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), current_database(), current_user,"
            " rolsuper, has_database_privilege(current_database(), 'CREATE'),"
            " has_database_privilege(current_database(), 'TEMPORARY'),"
            " rolsuper OR rolcreaterole OR EXISTS (SELECT FROM pg_roles WHERE rolname = %s),"
            " pg_has_role('pg_read_all_stats', 'USAGE'),"
            " pg_get_userbyid(nspowner), coalesce(pg_has_role(nspowner, 'USAGE'), false),"
            # a name in a schema that the user may not use can't even be looked up
            " EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid"
            "         AND relname = 'schema_version')"
            " FROM pg_roles LEFT JOIN pg_namespace ON nspname = 'nearfield'"
            " WHERE rolname = current_user",
            (READ_ROLE,),
        )
        *facts, owns, loaded = cursor.fetchone()
        version = None
        if loaded and owns:
            cursor.execute("SELECT version FROM nearfield.schema_version")
            version = cursor.fetchone()[0]
    return Rights(*(*facts, owns, version))
