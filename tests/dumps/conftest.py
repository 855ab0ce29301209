"""One embedded server for all tests; each begins in a database without a schema."""

import pytest

from dumps.postgres.server import embedded
from tests.dumps.postgres_case import ask


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The DSN of a running embedded server."""
    with embedded(tmp_path_factory.mktemp("server") / "postgres") as dsn:
        yield dsn


@pytest.fixture
def dsn(postgres):
    """The DSN of a database without nearfield's tables."""
    ask(postgres, "DROP SCHEMA IF EXISTS nearfield CASCADE")
    return postgres
