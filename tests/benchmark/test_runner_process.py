"""Measured processes are forks of a warm parent: each has its own life, end and limits."""

import os
import signal
import time

import numpy as np
import psutil
import pytest

from benchmark.results.outcome import Status
from benchmark.runner import child
from benchmark.runner.process import Limits, Warm
from benchmark.runner.request import Graph, noted, write_request
from tests.benchmark.bench_case import BROKEN, surface

LIMITS = Limits(timeout_s=30.0, memory_bytes=2**30, threads=1)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "vectors.npy", surface(60))
    return tmp_path


def request(folder, name, method):
    out = folder / name
    path = write_request(
        Graph(
            method=f"{BROKEN}:{method}", vectors=str(folder / "vectors.npy"), out=str(out),
            n=60, space="l2", threads=1, seed=0, pinned=False, parameters={}, k=3, repeat=1,
        )
    )  # fmt: skip
    np.save(out / "checked.npy", np.arange(60, dtype=np.int32))
    return path, out


def run(warm, folder, name, method, limits=LIMITS):
    path, out = request(folder, name, method)
    return warm.run(path, out / "log", limits), out


def test_a_crash_costs_no_other_process_and_no_new_start(folder):
    with Warm(f"{BROKEN}:Graphs", 1, folder / "log") as warm:
        first, out = run(warm, folder, "first", "Graphs")
        parent = warm.parent.pid
        assert (first.status, noted(out)["done"]) == (Status.OK, True)
        crashed, _ = run(warm, folder, "second", "GraphCrashes")
        assert (crashed.status, crashed.reason) == (Status.CRASHED, "killed by SIGSEGV")
        raised, _ = run(warm, folder, "third", "GraphRaises")
        assert raised.status is Status.FAILED
        assert raised.reason == "ValueError: links must be even"
        again, out = run(warm, folder, "fourth", "Graphs")
        assert (again.status, noted(out)["done"]) == (Status.OK, True)
        assert warm.parent.pid == parent
    assert not psutil.pid_exists(parent)


def test_each_process_notes_its_own_peak_memory(folder):
    with Warm(f"{BROKEN}:Graphs", 1, folder / "log") as warm:
        _, large = run(warm, folder, "first", "GraphTakes200MiB")
        _, small = run(warm, folder, "second", "Graphs")
    base = noted(small)["baseline_bytes"]
    assert noted(large)["peak_bytes"] - base > 190 << 20
    assert noted(small)["peak_bytes"] - base < 40 << 20
    # what importing takes belongs to it, although its parent did that
    assert base > 90 << 20


def test_time_and_memory_end_one_process_only(folder):
    with Warm(f"{BROKEN}:Graphs", 1, folder / "log") as warm:
        run(warm, folder, "first", "Graphs")
        short = Limits(0.3, 2**30, 1)
        late, _ = run(warm, folder, "second", "GraphSleeps", short)
        assert (late.status, late.reason) == (Status.TIMEOUT, "stopped after 0 s")
        assert late.seconds < 5
        little = Limits(30.0, noted(folder / "first")["baseline_bytes"] + (60 << 20), 1)
        hungry, _ = run(warm, folder, "third", "GraphDevours", little)
        assert hungry.status is Status.OUT_OF_MEMORY
        assert run(warm, folder, "fourth", "Graphs")[0].status is Status.OK


def test_a_parent_that_was_killed_is_a_result_and_the_next_one_starts_anew(folder):
    with Warm(f"{BROKEN}:Graphs", 1, folder / "log") as warm:
        run(warm, folder, "first", "Graphs")
        os.kill(warm.parent.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert run(warm, folder, "second", "Graphs")[0].status is Status.OUT_OF_MEMORY
        assert run(warm, folder, "third", "Graphs")[0].status is Status.OK


def test_a_library_that_kills_its_process_when_imported_is_a_result(folder):
    with Warm("tests.benchmark.kills_when_imported:Any", 1, folder / "log") as warm:
        ended, _ = run(warm, folder, "first", "Graphs")
        assert (ended.status, ended.reason) == (Status.CRASHED, "killed by SIGABRT")


def test_what_a_library_prints_is_no_answer_and_files_of_the_folder_are_not_imported(
    folder, monkeypatch
):
    (folder / "json.py").write_text("raise SystemExit('imported from the folder')")
    monkeypatch.chdir(folder)
    with Warm("tests.benchmark.prints_when_imported:Graphs", 1, folder / "log") as warm:
        assert run(warm, folder, "first", "Graphs")[0].status is Status.OK
    assert "a notice about instructions" in (folder / "log").read_text()


def test_repetitions_end_at_their_number_or_once_they_took_a_second(monkeypatch):
    assert list(child.repeated(3)) == [0, 1, 2]
    monkeypatch.setattr(child, "REPEAT_WITHIN_S", 0.0)
    assert list(child.repeated(3)) == [0]
