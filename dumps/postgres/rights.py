"""What the server at a DSN is and what its user may do there: for `nearfield doctor`."""

from dataclasses import dataclass

from dumps.postgres.connection import connected


@dataclass(frozen=True)
class Rights:
    """Server, user and rights. `schema_version` is None where nothing was ever loaded."""

    server_version: str
    database: str
    user: str
    superuser: bool
    create_schema: bool
    schema_version: int | None
    owns_schema: bool

    @property
    def may_load(self) -> bool:
        """Whether `nearfield load` has the rights that it needs."""
        return self.superuser or self.owns_schema or self.create_schema


def rights(dsn: str) -> Rights:
    """Ask the server. Raises `DatabaseError` when it can't be reached."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), current_database(), current_user,"
            " rolsuper, has_database_privilege(current_database(), 'CREATE'),"
            " to_regclass('nearfield.schema_version') IS NOT NULL,"
            " EXISTS (SELECT FROM pg_namespace WHERE nspname = 'nearfield'"
            "         AND pg_has_role(nspowner, 'USAGE'))"
            " FROM pg_roles WHERE rolname = current_user"
        )
        server, database, user, superuser, schema, loaded, owns = cursor.fetchone()
        version = None
        if loaded and owns:
            cursor.execute("SELECT version FROM nearfield.schema_version")
            version = cursor.fetchone()[0]
    return Rights(server, database, user, superuser, schema, version, owns)
