"""Errors that a task raises on another machine arrive as what they were, with their exit codes."""

import pytest
from distributed.core import error_message
from distributed.protocol.pickle import loads

from nearfield.errors import NearfieldError


def all_errors(base):
    return [one for each in base.__subclasses__() for one in (each, *all_errors(each))]


@pytest.mark.parametrize("kind", all_errors(NearfieldError))
def test_an_error_of_a_task_comes_back_as_itself(kind):
    try:
        raise kind("no room left")
    except NearfieldError as error:
        sent = error_message(error)["exception"].data
    come = loads(sent) if isinstance(sent, bytes) else sent
    assert (type(come), str(come)) == (kind, "no room left")
