"""A build with its run on a local path against the same build with it in an object store.

Owns the measurement of docs/results/object-storage.md: seconds of each step, and the bytes and
requests that the store saw, counted by the server. The server is moto's, a process of its own on
127.0.0.1; `--delay-ms` lets it wait before each answer, as a store further away would.

    python -m benchmark.objects_speed --rows 300000 --dims 64 --workers 2
"""

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from nearfield import api
from nearfield.cluster import ClusterOptions
from nearfield.copies import send_folder
from nearfield.locations import location
from nearfield.objects import ObjectPath
from nearfield.vectorset import Geometry, write_vector_set

ACCESS = {
    "AWS_ACCESS_KEY_ID": "measured",
    "AWS_SECRET_ACCESS_KEY": "measured",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class _Counting:
    """A WSGI application that counts what passes: requests, bytes sent and bytes fetched."""

    def __init__(self, application: Callable[..., Any], delay_s: float) -> None:
        self.application, self.delay_s = application, delay_s
        self.requests = self.sent = self.fetched = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(self.delay_s)
        self.requests += 1
        if environ["REQUEST_METHOD"] in ("PUT", "POST"):
            self.sent += int(environ.get("CONTENT_LENGTH") or 0)
        for block in self.application(environ, start):
            self.fetched += len(block)
            yield block


def _serve(pipe: Connection, delay_s: float) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    counting = _Counting(DomainDispatcherApplication(create_backend_app), delay_s)
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    while pipe.recv() == "counts":
        pipe.send({"requests": counting.requests, "sent": counting.sent, "got": counting.fetched})


@contextmanager
def _server(delay_s: float) -> Iterator[Callable[[], dict[str, int]]]:
    """A store at the address that the environment then names; yields a reader of its counts."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, delay_s))
    process.start()
    os.environ.update(ACCESS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{ours.recv()}")

    def counts() -> dict[str, int]:
        ours.send("counts")
        return dict(ours.recv())

    try:
        yield counts
    finally:
        ours.send("end")
        process.join()


def measured(rows: int, dims: int, k: int, workers: int, delay_s: float) -> dict[str, Any]:
    """Both builds in turn, local first, then in the store; the matrices are compared."""
    with tempfile.TemporaryDirectory() as name, _server(delay_s) as counts:
        folder = Path(name)
        os.environ["NEARFIELD_CACHE"] = str(folder / "cache")
        ids = pa.table({"recording_id": np.arange(rows)})
        geometry = Geometry(space="l2")
        vectors = write_vector_set(folder / "vectors", manifold(rows, dims), ids, geometry).path
        import fsspec

        fsspec.filesystem("s3", use_listings_cache=False).mkdir("measured")
        send_folder(vectors, ObjectPath("s3://measured/vectors"))
        before = counts()
        found: dict[str, Any] = {}
        matrices: list[list[Any]] = []
        for kind, source, run in (
            ("local", str(vectors), str(folder / "run")),
            ("object store", "s3://measured/vectors", "s3://measured/run"),
        ):
            started = time.perf_counter()
            report = api.build(source, run, k=k, method="selfjoin", cluster=ClusterOptions(workers))
            found[kind] = {
                "seconds": round(time.perf_counter() - started, 2),
                "steps": dict(report.seconds),
                "parts": report.parts,
            }
            matrices.append(_lists(str(report.matrix), folder / f"{len(matrices)}.h5"))
        after = counts()
        # the matrix was fetched here once more, to be compared
        extra = (folder / "1.h5").stat().st_size
        moved = {name: after[name] - before[name] for name in after}
        moved["got"] -= extra
        found["equal"] = all(np.array_equal(*pair) for pair in zip(*matrices, strict=True))
        found["moved"] = moved
        found["per recording"] = {name: round(moved[name] / rows, 1) for name in ("sent", "got")}
        return found


def _lists(matrix: str, copy: Path) -> list[Any]:
    place = location(matrix)
    if isinstance(place, ObjectPath):
        place.get(copy)
        place = copy
    with h5py.File(place, "r") as file:
        return [file[name][...] for name in ("neighbours", "distances")]


def main() -> None:
    """Measure as asked, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    for _ in range(asked.repeats):
        delay_s = asked.delay_ms / 1000
        found = measured(asked.rows, asked.dims, asked.k, asked.workers, delay_s)
        print(json.dumps(found, indent=2), flush=True)


if __name__ == "__main__":
    main()
