"""Turns at a core: one computes at a time, and a dead process holds nobody up."""

import os
import select
import subprocess
import sys
import time

import pytest
from distributed import Client, LocalCluster

from nearfield.turns import turn

HOLDER = """
import os, sys, time
from pathlib import Path
os.sched_setaffinity(0, {int(sys.argv[1])})
from nearfield.turns import turn
with turn(Path(sys.argv[2])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def core():
    """This process bound to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


@pytest.fixture
def command(core, tmp_path):
    return [sys.executable, "-c", HOLDER, str(core), str(tmp_path / "turns")]


@pytest.fixture
def holder(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with process:
        yield process
        process.kill()


def test_the_core_of_a_dead_process_is_free(holder, command):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert not select.select([waiting.stdout], [], [], 1)[0]
        holder.kill()
        assert waiting.stdout.readline() == "mine\n"
        waiting.kill()


def test_a_free_core_is_had_at_once_and_again(core, tmp_path):
    for _ in range(2):
        started = time.monotonic()
        with turn(tmp_path / "turns"):
            assert time.monotonic() - started < 1


def test_without_a_place_for_locks_nobody_waits(core, tmp_path):
    (tmp_path / "turns").write_text("in the way")
    with turn(tmp_path / "turns"):
        pass


def in_turn():
    with turn():
        began = time.monotonic()
        time.sleep(0.3)
        return began, time.monotonic()


def hold_turn(begun, ended):
    with turn():
        begun.touch()
        while not ended.exists():
            time.sleep(0.01)


@pytest.mark.slow
def test_workers_of_a_cluster_take_turns_and_another_clusters_do_not_wait(core, tmp_path):
    def cluster(name, workers):
        return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1",
                            dashboard_address="127.0.0.1:0", silence_logs="ERROR",
                            local_directory=tmp_path / name)  # fmt: skip

    begun, ended = tmp_path / "begun", tmp_path / "ended"
    with cluster("other", 1) as other, Client(other) as client:
        held = client.submit(hold_turn, begun, ended)
        with cluster("one", 2) as one, Client(one) as ours:
            while not begun.exists():
                time.sleep(0.01)
            early, late = sorted(ours.gather([ours.submit(in_turn, pure=False) for _ in range(2)]))
            assert late[0] >= early[1]
        ended.touch()
        held.result()
