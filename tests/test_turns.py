"""Turns at a core: one computes at a time, and a dead process holds nobody up."""

import os
import select
import subprocess
import sys
import time

import pytest

from nearfield.turns import turn

HOLDER = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from nearfield.turns import turn
with turn():
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def core(tmp_path, monkeypatch):
    """This process bound to one core, with locks of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


@pytest.fixture
def holder(core):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(core)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    with process:
        yield process
        process.kill()


def test_the_core_of_a_dead_process_is_free(holder):
    command = [sys.executable, "-c", HOLDER, str(min(os.sched_getaffinity(0)))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert not select.select([waiting.stdout], [], [], 1)[0]
        holder.kill()
        assert waiting.stdout.readline() == "mine\n"
        waiting.kill()


def test_a_free_core_is_had_at_once_and_again(core):
    for _ in range(2):
        started = time.monotonic()
        with turn():
            assert time.monotonic() - started < 1


def test_without_a_place_for_locks_nobody_waits(core, tmp_path):
    (tmp_path / f"nearfield-turns-{os.getuid()}").write_text("in the way")
    with turn():
        pass
