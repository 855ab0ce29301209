"""How fast each file of a dump is written, against writing the raw arrays, and in how much memory.

    python -m benchmark.dump_speed make RUN [--n 1000000] [-k 100]
    python -m benchmark.dump_speed measure RUN [--repeats 3]

`make` writes a run of random, well-formed lists; no search is measured. `measure` takes turns: each
way runs in a process of its own, writes into the same folder, and is timed until its file is on
the disk (fsync). `raw` copies the two arrays out of the page cache into plain files. `hdf5` is the
dump's copy of matrix.h5, `matrix` what wrote that file in the first place, with its reading back
and its checksum. Every other way reads the lists out of matrix.h5, which the time includes. `dump`
is everything with all formats and all checksums. Memory is the peak resident size of the process.
Prints Markdown.
"""

import argparse
import json
import mmap
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmark.copy_speed import random_run
from dumps.dump.source import Matrix, mapped_ids
from dumps.dump.tables import write_csv, write_flat, write_parquet
from dumps.dump.write import DumpOptions, copy_file, write_dump
from dumps.matrix import Block, write_matrix
from dumps.postgres.source import opened_source
from nearfield.files import fsync_path, sha256_of
from nearfield.run import Run, RunConfig, create_run, open_run
from nearfield.vectorset import open_vector_set

ROWS = 65_536
SETTLING_S = 1.0
WAYS = ("raw", "sealed", "hdf5", "matrix", "parquet", "csv", "dump")


def written(way: str, run: Run, folder: Path) -> dict[str, Any]:
    """Write one way; seconds until it is on the disk, those of processors, bytes, peak memory."""
    target = folder / way
    with opened_source(run, labels=True) as source:

        def named() -> Matrix:
            return Matrix(source, mapped_ids(source, folder))

        ways: dict[str, Callable[[], object]] = {
            "raw": lambda: _raw(run, target),
            "sealed": lambda: _sealed(run, target),
            "hdf5": lambda: copy_file(run.matrix, target),
            "matrix": lambda: _matrix(run, folder),
            "parquet": lambda: write_parquet(target, named(), _ignore),
            "csv": lambda: write_csv(target, named(), _ignore),
            "flat": lambda: write_flat(target, named(), _ignore),
            "dump": lambda: write_dump(run, folder, DumpOptions(force=True)),
        }
        started, worked = time.perf_counter(), time.process_time()
        ways[way]()
        if target.exists():
            fsync_path(target)
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "processor": worked, "bytes": size, "peak": peak}


def _raw(run: Run, target: Path) -> None:
    with target.open("wb") as stream:
        for name in ("neighbours", "distances"):
            for values in _read(run.folder.parent / f"{name}.npy"):
                stream.write(values.data)


def _sealed(run: Run, target: Path) -> None:
    _raw(run, target)
    # as for matrix.h5, the disk and the checksum don't wait for each other
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(fsync_path, target)
        sha256_of(target)
        synced.result()


def _matrix(run: Run, folder: Path) -> None:
    ids = open_vector_set(Path(run.config.vectors), verify=False).id_stream
    lists = [_read(run.folder.parent / f"{name}.npy") for name in ("neighbours", "distances")]
    pairs = zip(*lists, strict=True)
    blocks: Iterator[Block] = ((ROWS * place, *pair) for place, pair in enumerate(pairs))
    config: RunConfig = run.config
    write_matrix(create_run(folder / "run", config), blocks, ids, attributes={})


def _read(path: Path) -> Iterator[Any]:
    """Blocks of an array, straight from the page cache; their pages count until the next one."""
    values = np.load(path, mmap_mode="r")
    for first in range(0, len(values), ROWS):
        yield values[first : first + ROWS]
        values._mmap.madvise(mmap.MADV_DONTNEED)


def _ignore(_amount: int) -> None:
    pass


def measured(run: Path, repeats: int, ways: tuple[str, ...] = WAYS) -> dict[str, list[Any]]:
    """`repeats` results of each way, in turns, each in a process of its own."""
    results: dict[str, list[Any]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            with tempfile.TemporaryDirectory(dir=run.parent) as folder:
                command = [
                    *(sys.executable, "-m", "benchmark.dump_speed", "one"),
                    *(str(run), folder, way),
                ]
                # what the last one wrote and deleted isn't this one's business
                os.sync()
                time.sleep(SETTLING_S)
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[way].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def markdown(n: int, k: int, results: dict[str, list[Any]]) -> str:
    """The results as a section of docs/results/dump-speed.md."""
    raw = statistics.median(each["seconds"] for each in results["raw"])
    raw_bytes = 8 * n * k
    lines = [
        f"## {n:,} x top-{k}: {raw_bytes / 2**20:,.0f} MiB of raw arrays",
        "",
        "| way | seconds, each repetition | median | x raw | processor s | MiB/s | MiB written |"
        " peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, each in results.items():
        seconds = [one["seconds"] for one in each]
        middle = statistics.median(seconds)
        lines.append(
            f"| {way} | {', '.join(f'{value:.2f}' for value in seconds)} | {middle:.2f} |"
            f" {middle / raw:.2f} | {statistics.median(one['processor'] for one in each):.2f} |"
            f" {raw_bytes / 2**20 / middle:,.0f} |"
            f" {each[0]['bytes'] / 2**20:,.0f} | {max(one['peak'] for one in each) / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def make(run: Path, n: int, k: int) -> None:
    """A run of random lists in `run`, and the same lists as raw arrays beside it."""
    run.parent.mkdir(parents=True, exist_ok=True)
    random_run(run.parent, n, k)
    with h5py.File(run / "matrix.h5") as file:
        for name in ("neighbours", "distances"):
            shape, kind = file[name].shape, file[name].dtype
            path = run.parent / f"{name}.npy"
            out = np.lib.format.open_memmap(path, "w+", dtype=kind, shape=shape)
            for first in range(0, n, ROWS):
                out[first : first + ROWS] = file[name][first : first + ROWS]


def main() -> None:
    """Make, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("run", type=Path)
    making.add_argument("--n", type=int, default=1_000_000)
    making.add_argument("-k", type=int, default=100)
    measuring = commands.add_parser("measure")
    measuring.add_argument("run", type=Path)
    measuring.add_argument("--repeats", type=int, default=3)
    measuring.add_argument("--ways", default=",".join(WAYS))
    one = commands.add_parser("one")
    for name in ("run", "folder"):
        one.add_argument(name, type=Path)
    one.add_argument("way")
    chosen = parser.parse_args()
    if chosen.command == "make":
        make(chosen.run, chosen.n, chosen.k)
    elif chosen.command == "one":
        print(json.dumps(written(chosen.way, open_run(chosen.run), chosen.folder)))
    else:
        config = open_run(chosen.run).config
        results = measured(chosen.run, chosen.repeats, tuple(chosen.ways.split(",")))
        print(markdown(config.n, config.columns, results))
        names = ("h5py", "pyarrow", "zstandard", "numpy")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        print(
            f"\n{platform.machine()}, {os.cpu_count()} cores, load average "
            f"{os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, {versions}."
        )


if __name__ == "__main__":
    main()
