"""A cluster of two machines, as Dask sees them: a worker on 127.0.0.1 and one on 127.0.0.2."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distributed import Client, LocalCluster

ROOT = Path(__file__).parents[2]
HOSTS = ("127.0.0.1", "127.0.0.2")


@contextmanager
def two_hosts(folder: Path, *path: Path) -> Iterator[Client]:
    """Its client; `path`: what its workers import from, before this project."""
    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None)
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
        for host in HOSTS:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "distributed.cli.dask_worker"),
                    *(cluster.scheduler_address, "--host", host, "--nthreads", "1", "--no-nanny"),
                    *("--no-dashboard", "--local-directory", str(folder / host)),
                ],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
        client = stack.enter_context(Client(cluster))
        client.wait_for_workers(len(HOSTS), timeout=120)
        yield client
