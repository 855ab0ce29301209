"""How much memory each product takes, and what every further recording adds to that.

    python -m benchmark.product_memory FOLDER [--sizes 1000000,4000000] [-k 100]

For each size a run of random, well-formed lists is made; then each step has a process of its own:
`matrix` writes matrix.h5 (what a build does at its end), `dump` all formats of a dump, `check` what
`dump --check` does to it, `load` fills and publishes an embedded Postgres. The peak is the resident
memory that the system counted for the step's process, mapped pages and libraries included, and that
of a child which reads files for it; not the database server's. Prints Markdown. Owns this
measurement, and removes what it made.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import h5py
import psutil

from benchmark.copy_speed import random_run
from dumps.dump.check import check_dump
from dumps.dump.write import FORMATS, DumpOptions, write_dump
from dumps.matrix import Block, write_matrix
from dumps.postgres.load import load_run
from dumps.postgres.server import embedded
from nearfield.run import Run, create_run, open_run
from nearfield.vectorset import open_vector_set

STEPS = ("matrix", "dump", "check", "load")
ROWS = 16_384


def peak_bytes(process: int | str = "self") -> int:
    """The most resident memory that a process ever had."""
    status = Path(f"/proc/{process}/status").read_text()
    # getrusage counts what the parent had when it started this process
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


def stepped(step: str, run: Run, folder: Path) -> dict[str, float]:
    """Take one step in this process; its seconds and the peak of this process and its readers."""
    steps: dict[str, Callable[[], object]] = {
        "matrix": lambda: _matrix(run, folder),
        "dump": lambda: write_dump(run, folder, DumpOptions(force=True)),
        "flat": lambda: write_dump(run, folder, DumpOptions(FORMATS, flat=True, force=True)),
        "check": lambda: _check(folder),
        "load": lambda: _load(run),
    }
    started = time.perf_counter()
    steps[step]()
    seconds = time.perf_counter() - started
    readers = sum(peak_bytes(child.pid) for child in psutil.Process().children())
    return {"seconds": seconds, "peak": peak_bytes(), "readers": readers}


def _matrix(run: Run, folder: Path) -> None:
    ids = open_vector_set(Path(run.config.vectors), verify=False).id_stream
    again = create_run(folder / "again", run.config)
    write_matrix(again, _blocks(run), ids, attributes={})
    shutil.rmtree(again.folder)


def _blocks(run: Run) -> Iterator[Block]:
    with h5py.File(run.matrix) as file:
        for first in range(0, run.config.n, ROWS):
            rows = slice(first, first + ROWS)
            yield first, file["neighbours"][rows], file["distances"][rows]


def _check(folder: Path) -> None:
    found = check_dump(folder)
    if not found.passed:
        raise SystemExit("\n".join(found.problems))


def _load(run: Run) -> None:
    with embedded(run.postgres) as dsn:
        load_run(run, dsn, force=True)


def measured(
    folder: Path, n: int, k: int, steps: Sequence[str] = STEPS
) -> dict[str, dict[str, float]]:
    """Seconds and peaks of each step, for a run of n x k that is made in `folder`, then removed."""
    made = folder / f"{n}"
    made.mkdir(parents=True)
    try:
        _child("make", made, n, k)
        return {step: _child(step, made, n, k) for step in steps}
    finally:
        shutil.rmtree(made)


def _child(step: str, folder: Path, n: int, k: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmark.product_memory", "--one", step, str(folder)]
    done = subprocess.run(
        [*command, "--sizes", str(n), "-k", str(k)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _one(step: str, folder: Path, n: int, k: int) -> dict[str, float]:
    if step == "make":
        random_run(folder, n, k)
        (folder / "dumps").mkdir()
        return {}
    where = folder if step in ("matrix", "load") else folder / "dumps"
    return stepped(step, open_run(folder / "run"), where)


def growth(small: float, large: float, sizes: tuple[int, int]) -> float:
    """Bytes that a recording adds between two sizes."""
    return (large - small) / (sizes[1] - sizes[0])


def markdown(k: int, results: dict[int, dict[str, dict[str, float]]]) -> str:
    """Peaks by size, and what a recording adds between the first size and the last."""
    sizes = sorted(results)
    header = " | ".join(f"{n:,}: s, peak MiB" for n in sizes)
    lines = [f"| k = {k} | {header} | bytes a recording |", "|---" * (len(sizes) + 2) + "|"]
    for step in results[sizes[0]]:
        peaks = [results[n][step]["peak"] + results[n][step]["readers"] for n in sizes]
        cells = [
            f"{results[n][step]['seconds']:.1f}, {peak / 2**20:,.0f}"
            for n, peak in zip(sizes, peaks, strict=True)
        ]
        more = growth(peaks[0], peaks[-1], (sizes[0], sizes[-1])) if len(sizes) > 1 else 0.0
        lines.append(f"| {step} | {' | '.join(cells)} | {more:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Make, measure and print; or, for itself, take one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="1000000,4000000")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sizes = [int(each) for each in chosen.sizes.split(",")]
    if chosen.one:
        print(json.dumps(_one(chosen.one, chosen.folder, sizes[0], chosen.k)))
        return
    steps = chosen.steps.split(",")
    print(markdown(chosen.k, {n: measured(chosen.folder, n, chosen.k, steps) for n in sizes}))
    names = ("h5py", "pyarrow", "zstandard", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores; Python "
          f"{platform.python_version()}, {versions}.")  # fmt: skip


if __name__ == "__main__":
    main()
