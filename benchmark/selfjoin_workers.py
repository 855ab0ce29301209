"""The build by the self-join measured: in one process, on one worker, on two.

    python -m benchmark.selfjoin_workers --rows 1000000 --dims 128 --out DIR --cases 1 2 process-2
    python -m benchmark.selfjoin_workers --rows 4000000 --dims 93 --out DIR --cases 2 --verify
    python -m benchmark.selfjoin_workers --rows 300000 --dims 64 --space ip --out DIR --cases 2

A case is a number of workers, each with one core of its own (the process and all its children are
bound to so many cores), `default-N`: the build on N cores when nobody says how many workers, or
`process-N`: `knn_matrix` with N threads on N cores. Every case runs in
a fresh process on generated manifold data; the memory of it and all its children is sampled
together. Prints one JSON line per case and appends it to DIR/workers.jsonl; the digest of the
lists tells whether all cases gave the same. Refuses other methods.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from benchmark.selfjoin_ladder import (
    checked_rows,
    found_shares,
    machine,
    peak_bytes,
    resident_bytes,
    shares_of,
)
from index_build.selfjoin import knn_matrix
from nearfield import api
from nearfield.cluster import ClusterOptions
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, open_vector_set, write_vector_set

SAMPLE_S = 0.5
BLOCK_ROWS = 65_536
PROCESS = "process-"
DEFAULT = "default-"


class Peak(threading.Thread):
    """Samples the memory of a process and its children, and the size of a folder, until stopped.

    `rss` counts a page once per process that maps it, `pss` once in all, `private` leaves mapped
    files out; `disk` is what the folder held. Bytes, each at its highest.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.process, self.folder = psutil.Process(pid), folder
        self.ended = threading.Event()
        self.highest = dict.fromkeys(("rss", "pss", "private", "disk"), 0)

    def run(self) -> None:
        """Sample until `ended` is set."""
        while not self.ended.wait(SAMPLE_S):
            found = dict.fromkeys(self.highest, 0)
            for process in self._processes():
                try:
                    memory = process.memory_full_info()
                except psutil.Error:
                    continue
                found["rss"] += memory.rss
                found["pss"] += memory.pss
                found["private"] += memory.uss
            found["disk"] = sum(_sizes(self.folder))
            self.highest = {name: max(found[name], self.highest[name]) for name in found}

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return []


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        try:
            yield path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue


@contextmanager
def sampled(pid: int, folder: Path) -> Iterator[Peak]:
    """Sample for the duration of the block."""
    peak = Peak(pid, folder)
    peak.start()
    try:
        yield peak
    finally:
        peak.ended.set()
        peak.join()


def digest(*arrays: Any) -> str:
    """16 hex digits of the lists, read in blocks."""
    content = hashlib.sha256()
    for array in arrays:
        for first in range(0, len(array), BLOCK_ROWS):
            content.update(np.ascontiguousarray(array[first : first + BLOCK_ROWS]).data)
    return content.hexdigest()[:16]


def measure_here(case: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in this process, which is bound to its cores before anything is started."""
    cores = int(case.removeprefix(PROCESS).removeprefix(DEFAULT))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    vectors = open_vector_set(asked.out / "vectors")
    if case.startswith(PROCESS):
        return _in_process(np.ascontiguousarray(vectors.vectors), cores, asked)
    run = asked.out / f"run-{case}"
    shutil.rmtree(run, ignore_errors=True)
    started = time.monotonic()
    report = api.build(
        vectors.path, run, k=asked.k, recall=asked.recall, method="selfjoin",
        cluster=ClusterOptions() if case.startswith(DEFAULT) else ClusterOptions(cores),
    )  # fmt: skip
    seconds = time.monotonic() - started
    with h5py.File(report.matrix) as file:
        mark = digest(file["neighbours"], file["distances"])
        rows = np.sort(checked_rows(vectors.n, 0))
        shares = shares_of(
            np.asarray(vectors.vectors), rows, file["distances"][rows], space=asked.space
        )
    written = {
        step["step"]: step["bytes_per_recording"]
        for step in api.status(run).steps
        if "bytes_per_recording" in step
    }
    return {
        "seconds": seconds, "steps": dict(report.seconds), "digest": mark,
        "recall estimate": report.recall_estimate, "bytes per recording": written,
        "recall of 1,000 rows": float(shares.mean()),
    }  # fmt: skip


def _in_process(vectors: Float32s, threads: int, asked: argparse.Namespace) -> dict[str, Any]:
    knn_matrix(vectors[:20_000], 10, space=asked.space, threads=threads)
    resident, started = resident_bytes(), time.monotonic()
    found = knn_matrix(vectors, asked.k, space=asked.space, recall=asked.recall, threads=threads)
    seconds = time.monotonic() - started
    output = found.neighbours.nbytes + found.distances.nbytes
    working = peak_bytes() - resident - output
    return {
        "seconds": seconds,
        "steps": found.report.seconds,
        "chosen": found.report.chosen,
        "digest": digest(found.neighbours, found.distances),
        "recall estimate": found.report.recall,
        "recall of 1,000 rows": float(found_shares(vectors, found, space=asked.space).mean()),
        "working set bytes": working,
    }


def measured(case: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in a fresh process, with the memory of all that it starts."""
    options = ["--out", str(asked.out), "--k", str(asked.k), "--recall", str(asked.recall)]
    options += ["--space", asked.space]
    command = [sys.executable, "-m", __spec__.name, "--here", case, *options]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
        sampled(child.pid, asked.out / f"run-{case}") as peak,
    ):
        output, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"case {case} ended with {child.returncode}")
    return {"case": case, **json.loads(output), "peak bytes": peak.highest}


def prepared_vectors(asked: argparse.Namespace) -> None:
    """Write the vector set unless it is there."""
    target, rows, dims = asked.out / "vectors", asked.rows, asked.dims
    if target.exists():
        found = open_vector_set(target)
        if (found.n, found.d, found.geometry.space) == (rows, dims, asked.space):
            return
        shutil.rmtree(target)
    recordings = pa.table({"recording_id": np.arange(rows)})
    write_vector_set(target, manifold(rows, dims), recordings, Geometry(space=asked.space))


def main() -> None:
    """Measure the cases of the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--space", choices=("l2", "ip"), default="l2")
    parser.add_argument("--cases", nargs="+", default=["1", "2", "process-1", "process-2"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--verify", action="store_true", help="check the matrices afterwards")
    parser.add_argument("--prepare", action="store_true", help="only write the vectors")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure_here(asked.here, asked)))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    prepared_vectors(asked)
    for case in asked.cases if not asked.prepare else []:
        facts = {name: getattr(asked, name) for name in ("rows", "dims", "k", "space", "recall")}
        result = facts | measured(case, asked)
        if asked.verify and not case.startswith(PROCESS):
            report = api.verify(asked.out / f"run-{case}")
            result |= {"passed": report.passed, "verified recall": report.recall}
        line = json.dumps(result | {"machine": machine()})
        print(line)
        with (asked.out / "workers.jsonl").open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
