"""A local S3 server over HTTP, and workers that see nothing of the driver's folders."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

ACCESS = {
    "AWS_ACCESS_KEY_ID": "nearfield-tests",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-but-looked-for",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass
class Server:
    """What is stored stays when the server is stopped and started again, at the same port."""

    running: object = None
    port: int = 0

    def start(self):
        from moto.server import ThreadedMotoServer

        self.running = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.running.start()
        _, self.port = self.running.get_host_and_port()

    def stop(self):
        self.running.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def server():
    """One for all tests, since a process keeps its client of a store."""
    pytest.importorskip("s3fs", reason="object stores need the extra `objects`")
    pytest.importorskip("moto.server", reason="the server comes with the extra `dev`")
    server = Server()
    server.start()
    before = dict(os.environ)
    os.environ.update(ACCESS, AWS_ENDPOINT_URL=server.url)
    yield server
    os.environ.clear()
    os.environ.update(before)
    server.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """The URL of a fresh bucket; the cache of this process lies in the test's folder."""
    from nearfield.objects import _store

    monkeypatch.setenv("NEARFIELD_CACHE", str(tmp_path / "cache"))
    name = f"b{time.monotonic_ns()}"
    _store("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="module")
def scheduler(server, tmp_path_factory):
    """The address of a scheduler with two workers, for which pytest's folders are empty.

    Where mounting isn't allowed, they only have another working directory and cache.
    """
    hidden = tmp_path_factory.getbasetemp()
    place = hidden.parent / f"workers-{os.getpid()}"
    place.mkdir()
    file = place / "scheduler.json"
    python = f"exec {sys.executable} -W ignore -m distributed.cli."
    # without a port of its own it takes 8787 even when no dashboard is asked for
    here = "--host 127.0.0.1 --dashboard-address 127.0.0.1:0"
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    hide = ["unshare", "--mount"] if allowed.returncode == 0 else []
    empty = f"mount -t tmpfs none {hidden} && " if hide else ""
    started = [
        _started(["sh", "-c", f"{python}dask_scheduler {here} --port 0 --scheduler-file {file}"],
                 place)
    ]  # fmt: skip
    for number in range(2):
        folder = place / f"worker-{number}"
        folder.mkdir()
        run = f"{python}dask_worker {here} --scheduler-file {file} --nthreads 1 --no-nanny"
        command = [*hide, "sh", "-c", f"{empty}{run} --local-directory {folder}"]
        started.append(_started(command, folder))
    try:
        yield _address(file)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def _started(command, folder):
    environment = os.environ | {
        "NEARFIELD_CACHE": str(folder / "cache"),
        # a machine that is suspended for a while isn't dead
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1 hour",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "1 hour",
    }
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _address(file):
    import json

    from distributed import Client

    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, "the scheduler didn't start"
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    with Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    return address
