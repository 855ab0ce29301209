"""One embedded server for all tests, an empty database in it for each."""

import itertools

import pytest

from dumps.postgres.server import embedded
from tests.dumps.postgres_case import ask

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The DSN of a running embedded server."""
    with embedded(tmp_path_factory.mktemp("server") / "postgres") as dsn:
        yield dsn


@pytest.fixture
def dsn(postgres):
    """The DSN of a fresh database."""
    name = f"case_{next(_numbers)}"
    ask(postgres, f"CREATE DATABASE {name}")
    return postgres.replace("dbname=postgres", f"dbname={name}")
