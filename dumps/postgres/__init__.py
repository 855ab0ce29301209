"""The matrix in Postgres: a server to hold it, the load, publishing, and queries.

server.database() yields a DSN (a given one, or an embedded server's); load.load_run() loads and
publishes a run there; publish.rollback() goes back; query.similar() asks. Refuses to know how the
matrix was made: it reads a finished run directory.
"""
