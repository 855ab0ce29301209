"""A cluster of two workers for the tests of a file."""

import pytest

from nearfield.cluster import ClusterOptions, connected


@pytest.fixture(scope="module")
def client():
    with connected(ClusterOptions(workers=2)) as client:
        yield client
