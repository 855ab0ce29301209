"""One process at a time on a directory."""

import os
import subprocess

import pytest

from nearfield.errors import (
    RunLocked,
    UsageError,
)
from nearfield.lock import locked
from tests.programs import python

HOLDER = """
import sys
from pathlib import Path
from nearfield.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestLock:
    def test_a_second_process_is_refused_until_the_first_is_killed(self, tmp_path):
        with python(HOLDER, tmp_path, stdin=subprocess.PIPE) as holder:
            try:
                assert holder.stdout.readline() == "held\n"
                with pytest.raises(RunLocked, match=f"pid {holder.pid}"), locked(tmp_path):
                    pass
            finally:
                holder.kill()
            holder.wait()
            with locked(tmp_path):
                assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"

    def test_a_file_in_the_directorys_place_is_named(self, tmp_path):
        (tmp_path / "run").touch()
        with pytest.raises(UsageError, match=r"run is a file"), locked(tmp_path / "run"):
            pass

    def test_it_is_free_after_the_block(self, tmp_path):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
        with locked(tmp_path):
            pass

    def test_a_directory_made_for_it_goes_when_the_block_fails_with_nothing_in_it(self, tmp_path):
        for name, mine in (("new", False), ("used", True), ("there", False)):
            (tmp_path / "there").mkdir(exist_ok=True)
            with pytest.raises(ZeroDivisionError), locked(tmp_path / name):
                if mine:
                    (tmp_path / name / "result").touch()
                raise ZeroDivisionError
        assert sorted(it.name for it in tmp_path.iterdir()) == ["there", "used"]
        with locked(tmp_path / "new"), pytest.raises(RunLocked), locked(tmp_path / "new"):
            pass
        assert (tmp_path / "new" / ".lock").exists()

    def test_a_lock_that_its_holder_removes_is_not_taken(self, tmp_path, monkeypatch):
        import fcntl

        folder, whole, opened = tmp_path / "new", fcntl.flock, []

        def removed_before(descriptor, how):
            if not opened:
                opened.append(descriptor)
                (folder / ".lock").unlink()
                folder.rmdir()
            whole(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", removed_before)
        with locked(folder), pytest.raises(RunLocked), locked(folder):
            pass
        assert opened

    def test_the_exit_code_says_so(self):
        assert RunLocked.exit_code == 75
