"""What goes on without a scheduler or a worker, and what doesn't."""

import os
import signal
import subprocess
import sys

import dask.config
import numpy as np
import pytest
from distributed import Client, LocalCluster

from nearfield.cluster import Task, on_workers, run_tasks, workers_of
from nearfield.errors import Infrastructure
from tests.cli.conftest import Program, clustered
from tests.clusters.lab import free_port, until


@pytest.fixture
def lost():
    """A client whose scheduler is gone."""
    soon = {
        "distributed.comm.timeouts.connect": "100ms",
        "distributed.comm.retry.count": 0,
        "distributed.scheduler.worker-ttl": None,
    }
    with (
        dask.config.set(soon),
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        Client(cluster, timeout=1) as client,
    ):
        assert len(workers_of(client)) == 1
        cluster.sync(cluster.scheduler.close)
        yield client


def test_without_a_scheduler_every_question_is_infrastructure(lost):
    for ask in (
        lambda: workers_of(lost),
        lambda: on_workers(lost, os.getpid),
        lambda: run_tasks(lost, "test", [Task("a", _nothing, ())]),
    ):
        with pytest.raises(Infrastructure, match="the scheduler doesn't answer"):
            ask()
    until(lambda: lost.status == "closed")  # it has tried for its timeout to connect again
    with pytest.raises(Infrastructure, match="the scheduler doesn't answer"):
        workers_of(lost)


def _nothing(*, threads):
    pass


def test_workers_that_cant_answer_are_left_out():
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        first, second = workers_of(client)
        assert set(on_workers(client, _unless, first)) == {second}
        assert set(on_workers(client, os.getpid, workers=[first, "inproc://nobody/1/1"])) == {first}


def _unless(refused, dask_worker):
    if dask_worker.address == refused:
        raise FileNotFoundError("not here")


@pytest.mark.long
def test_a_scheduler_that_is_killed_ends_the_build_with_a_sentence(tmp_path):
    nearfield = Program(tmp_path)
    np.save(tmp_path / "embeddings.npy", clustered(60_000))
    assert nearfield("ingest", "embeddings.npy", "--out", "vectors").code == 0
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask_words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    scheduler = subprocess.Popen([*dask_words, "--port", str(port), "--no-dashboard"], **quiet)
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
         "--no-nanny", "--death-timeout", "5"],
        **quiet,
    )  # fmt: skip
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
        build = nearfield.start("build", "vectors", "--out", "run", "--scheduler", address)
        until(lambda: list(tmp_path.glob("run/shards/*")) or build.poll() is not None, 120)
        scheduler.send_signal(signal.SIGKILL)
        _out, err = build.communicate(timeout=120)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert build.returncode == 5, err
    assert "the scheduler doesn't answer any more" in err
    assert "Traceback" not in err
