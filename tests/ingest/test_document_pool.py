"""Ingest in several processes, interrupted: nothing keeps running, and errors say what to do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zstandard

from tests.ingest.document_samples import low, tar_bytes

SCRIPT = """
import sys
from pathlib import Path
from nearfield.ingest.document_pool import scan_all
from nearfield.ingest.document_scan import plan

if __name__ == "__main__":
    scan_all(plan([Path(sys.argv[1])]), Path(sys.argv[2]), 2)
    print("finished")
"""
DOCUMENTS = 150_000
SOON_S = 20


@pytest.fixture(scope="module")
def long_archives(tmp_path_factory):
    """Two archives that take seconds to read: one frame with one document, over and over."""
    folder = tmp_path_factory.mktemp("long")
    document = json.dumps(low()).encode() + b" " * 20_000
    member = tar_bytes({"x.json": document})[: 512 + len(document) + -len(document) % 512]
    frame = zstandard.ZstdCompressor().compress(member)
    (folder / "a.tar.zst").write_bytes(frame * DOCUMENTS)
    (folder / "b.tar.zst").write_bytes(frame * DOCUMENTS)
    return folder


@pytest.fixture
def running(long_archives, tmp_path):
    """An ingest in which both workers have begun, and its worker processes."""
    (tmp_path / "run.py").write_text(SCRIPT)
    work = tmp_path / "work"
    work.mkdir()
    with subprocess.Popen(
        [sys.executable, tmp_path / "run.py", long_archives, work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        while len(list(work.iterdir())) < 2 and process.poll() is None:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children()
        yield process, [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        process.kill()


def all_end(processes):
    _, alive = psutil.wait_procs(processes, timeout=SOON_S)
    return not alive


def test_ctrl_c_ends_the_workers_too(running):
    process, workers = running
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SOON_S)
    assert all_end(workers)
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert err.count("Traceback") == 1


def test_workers_end_when_their_parent_is_killed(running):
    process, workers = running
    assert len(workers) == 2
    process.kill()
    assert all_end(workers)


def test_a_killed_worker_is_an_infrastructure_error_that_names_the_remedy(running):
    process, workers = running
    workers[0].kill()
    out, err = process.communicate(timeout=SOON_S)
    assert all_end(workers)
    assert (process.returncode, out) == (1, "")
    assert "Infrastructure: a worker process of ingest was killed" in err
    assert "fewer --workers" in err
