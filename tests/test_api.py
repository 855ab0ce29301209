"""Which database a command means."""

from pathlib import Path

import pytest

from nearfield.api import place_of
from nearfield.errors import UsageError

DEFAULT = Path("run/postgres")


def test_without_anything_it_is_the_default():
    assert place_of(None, None, default=DEFAULT) == (None, DEFAULT)


def test_the_environment_comes_before_the_default(monkeypatch):
    monkeypatch.setenv("NEARFIELD_DSN", "host=elsewhere")
    assert place_of(None, None, default=DEFAULT) == ("host=elsewhere", None)


def test_what_is_named_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("NEARFIELD_DSN", "host=elsewhere")
    assert place_of("host=here", None, default=DEFAULT) == ("host=here", None)
    assert place_of(None, "db", default=DEFAULT) == (None, Path("db"))


def test_naming_both_is_refused():
    with pytest.raises(UsageError, match="either --dsn or --database"):
        place_of("host=here", "db", default=None)


def test_every_name_is_found_where_it_is_said_to_be():
    from nearfield import api

    for name in api.__all__:
        assert getattr(api, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        _ = api.bild
