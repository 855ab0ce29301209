"""What an update costs against its size, and whether many of them decay.

    python -m benchmark.update_speed cost --work FOLDER [--rows 1000000] [--shares 0.001 0.01]
    python -m benchmark.update_speed decay --work FOLDER [--rows 100000] [--updates 20]

cost: one build of generated vectors, then updates of it that add so much, or remove so much; steps
of each are printed beside the seconds of the build. decay: updates of 1% one after the other (half
of each also removes as many), then one build of what is there; recall of both by the verifier on
the same rows. Prints Markdown.
"""

import argparse
import json
import resource
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from nearfield import api
from nearfield.machine import machine_facts
from nearfield.manifest import library_versions
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, write_vector_set

DIMS, K = 128, 100
STEPS = (
    "changes",
    "cells",
    "update",
    "check base",
    "write vectors",
    "check recall",
    "write matrix",
)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "decay"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0001, 0.001, 0.01, 0.1])
    parser.add_argument(
        "--remove", action="store_true", help="Remove so much instead of adding it."
    )
    parser.add_argument("--matrix", action="store_true", help="Write the matrix too.")
    parser.add_argument("--updates", type=int, default=20)
    asked = parser.parse_args(given)
    print(f"Machine: {json.dumps(machine_facts().to_json())}\n")
    print(f"Versions: {json.dumps(library_versions())}\n")
    if asked.what == "cost":
        cost(asked, asked.rows or 1_000_000)
    else:
        decay(asked, asked.rows or 100_000)


def cost(asked: argparse.Namespace, rows: int) -> None:
    """The table of costs. The build is kept in FOLDER, so that a second call needs none."""
    most = max(asked.shares)
    data = manifold(rows + int(rows * most), DIMS)
    run = asked.work / "run"
    if not (run / "matrix.json").exists():
        _write(asked.work / "vectors", data[:rows], 0)
        started, used = time.perf_counter(), _processor_s()
        api.build(asked.work / "vectors", run, k=K)
        print(
            f"build: {time.perf_counter() - started:.1f} s, of processors"
            f" {_processor_s() - used:.1f} s\n",
            flush=True,
        )
    first = "removed" if asked.remove else "added"
    print(f"| {first} | total s | processor s | {' | '.join(STEPS)} | lists |")
    print(f"|{'---|' * (len(STEPS) + 4)}", flush=True)
    for share in asked.shares:
        m, out = int(rows * share), asked.work / "update"
        shutil.rmtree(out, ignore_errors=True)
        remove: list[str] = []
        add: list[Path] = []
        if asked.remove:
            chosen = np.random.default_rng(5).choice(rows, m, replace=False)
            remove = [str(row) for row in chosen]
        else:
            _write(asked.work / "new", data[rows : rows + m], rows)
            add = [asked.work / "new"]
        started, used = time.perf_counter(), _processor_s()
        report = api.update(run, out, add=add, remove=remove, matrix=asked.matrix)
        total, used = time.perf_counter() - started, _processor_s() - used
        steps = " | ".join(f"{report.seconds.get(step, 0):.2f}" for step in STEPS)
        print(f"| {m:,} | {total:.2f} | {used:.2f} | {steps} | {report.lists:,} |", flush=True)
    shutil.rmtree(asked.work / "update", ignore_errors=True)


def _processor_s() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def decay(asked: argparse.Namespace, rows: int) -> None:
    """Recall after many updates beside that of a fresh build of the same recordings."""
    each = rows // 100
    data = manifold(rows + asked.updates * each, DIMS)
    _write(asked.work / "vectors", data[:rows], 0)
    run = asked.work / "run0"
    api.build(asked.work / "vectors", run, k=K)
    print("| update | rows | recall by the verifier | interval |\n|---|---|---|---|")
    _row(0, run)
    random = np.random.default_rng(7)
    alive = np.arange(rows)
    for number in range(1, asked.updates + 1):
        first = rows + (number - 1) * each
        _write(asked.work / "new", data[first : first + each], first)
        gone = random.choice(alive, each if number % 2 else 0, replace=False)
        alive = np.concatenate([np.setdiff1d(alive, gone), np.arange(first, first + each)])
        after = asked.work / f"run{number}"
        api.update(run, after, add=asked.work / "new", remove=[str(row) for row in gone])
        if number > 1:
            shutil.rmtree(run)
        run = after
        if number % 5 == 0 or number == asked.updates:
            _row(number, run)
    fresh = api.compact(run / "vectors", asked.work / "fresh")
    api.build(fresh.path, asked.work / "rebuilt", k=K)
    _row(-1, asked.work / "rebuilt")


def _row(number: int, run: Path) -> None:
    found = api.verify(run, sample=2_000)
    name = "rebuilt" if number < 0 else str(number)
    print(
        f"| {name} | {found.n:,} | {found.recall:.4f} |"
        f" {found.recall_low:.4f} to {found.recall_high:.4f} |",
        flush=True,
    )


def _write(path: Path, vectors: Float32s, first: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    ids = pa.table({"recording_id": np.arange(first, first + len(vectors))})
    write_vector_set(path, vectors, ids, Geometry())


if __name__ == "__main__":
    main()
