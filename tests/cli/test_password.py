"""A password on the command line is warned of, whatever the command then does."""

import pytest
from typer.testing import CliRunner

from nearfield import api
from nearfield.cli import app
from nearfield.errors import MissingFile


@pytest.mark.parametrize(
    ("command", "asks"),
    [
        (["doctor"], "doctor"),
        (["load", "run", "--dry-run"], "plan_load"),
        (["load", "run"], "load"),
    ],
)
def test_a_password_in_dsn_is_warned_of(monkeypatch, command, asks):
    def nothing_there(*_words, **_options):
        raise MissingFile("nothing there")

    monkeypatch.setattr(api, asks, nothing_there)
    done = CliRunner().invoke(app, [*command, "--dsn", "host=/nowhere password=hunter2"])
    assert isinstance(done.exception, MissingFile)
    assert "others on this machine can read a password" in done.stderr
