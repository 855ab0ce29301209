"""What the tests of clusters share."""

import gc
import warnings

import pytest


@pytest.fixture(autouse=True)
def _loops_are_collected():
    """Distributed leaves the socket pair of a closed event loop to the garbage collector, which
    warns of it in whatever runs next.
    """
    _collect()
    yield
    _collect()


def _collect():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
