"""What an update costs against its size, and whether many of them decay.

    python -m benchmark.update_speed cost --work FOLDER [--rows 1000000] [--add 0.001 0.01]
    python -m benchmark.update_speed decay --work FOLDER [--rows 100000] [--updates 20]

cost: a build of generated vectors as a user runs it (`nearfield build`, a worker per core), the
self-join of them in one process (`knn_matrix`), then updates of the run that add, remove or change
so large a share; each up to its delta, called from a process that has compiled everything, and with
--matrix what comes after the delta. The run is kept in FOLDER: --build and --join measure anew what
the others are compared with. decay: updates of 1% one after the other (every second one removes as
many, too), then one build of what is there; recall of both by the verifier. Prints Markdown.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import knn_matrix
from nearfield import api
from nearfield.machine import machine_facts
from nearfield.manifest import library_versions
from nearfield.run import open_run
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, write_vector_set

DIMS, K = 128, 100
STEPS = ("changes", "cells", "update")
AFTER = ("check base", "write vectors", "check recall", "write matrix")
KINDS = ("add", "remove", "change")


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "decay"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=float, nargs="+", default=[], help="Shares.")
    parser.add_argument("--build", action="store_true", help="Build again, and time it.")
    parser.add_argument("--join", action="store_true", help="Time knn_matrix too.")
    parser.add_argument("--matrix", action="store_true", help="Write the matrix too.")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--updates", type=int, default=20)
    asked = parser.parse_args(given)
    print(f"Machine: {json.dumps(machine_facts().to_json())}\n")
    print(f"Versions: {json.dumps(library_versions())}\n", flush=True)
    if asked.what == "cost":
        cost(asked, asked.rows or 1_000_000)
    else:
        decay(asked, asked.rows or 100_000)


def cost(asked: argparse.Namespace, rows: int) -> None:
    """The table of costs."""
    more = _data(asked.work, rows, max([*asked.add, *asked.change, 0.001]))
    run = asked.work / "run"
    if asked.build or not (run / "matrix.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        _build(asked.work / "vectors", run)
    if asked.join:
        vectors = np.load(asked.work / "vectors" / "vectors.npy")
        started, used = time.perf_counter(), _processor_s()
        knn_matrix(vectors, K)
        _say("knn_matrix", started, used)
    # compiles, and makes the cells where the build left none
    _update(asked, run, "add", more[: max(1, rows // 10_000)], shown=False)
    print(f"\n| what | rows | total s | processor s | {' | '.join(STEPS)} | lists that differ |")
    print(f"|{'---|' * (len(STEPS) + 5)}", flush=True)
    for kind in KINDS:
        for share in getattr(asked, kind):
            for _ in range(asked.repeat):
                _update(asked, run, kind, more[: int(rows * share)])
    shutil.rmtree(asked.work / "update", ignore_errors=True)


def _data(work: Path, rows: int, share: float) -> Float32s:
    """The vector set in FOLDER, and vectors that aren't in it."""
    kept = work / "more.npy"
    if not (work / "vectors" / "manifest.json").exists() or not kept.exists():
        data = manifold(rows + max(1_000, int(rows * share)), DIMS)
        _write(work / "vectors", data[:rows], np.arange(rows))
        np.save(kept, data[rows:])
    return np.load(kept)


def _build(vectors: Path, run: Path) -> None:
    command = [sys.executable, "-m", "nearfield", "build", str(vectors), "--out", str(run)]
    started, used = time.perf_counter(), _processor_s()
    done = subprocess.run([*command, "-k", str(K)], check=True, capture_output=True, text=True)
    _say("nearfield build", started, used)
    print(done.stdout, flush=True)


def _say(what: str, started: float, used: float) -> None:
    print(
        f"{what}: {time.perf_counter() - started:.1f} s, of processors {_processor_s() - used:.1f}",
        flush=True,
    )


def _update(
    asked: argparse.Namespace, run: Path, kind: str, new: Float32s, *, shown: bool = True
) -> None:
    """One update, and its line."""
    rows, out = open_run(run).config.n, asked.work / "update"
    shutil.rmtree(out, ignore_errors=True)
    chosen = np.sort(np.random.default_rng(5).choice(rows, len(new), replace=False))
    remove = [str(row) for row in chosen] if kind == "remove" else []
    if kind != "remove":
        ids = chosen if kind == "change" else np.arange(rows, rows + len(new))
        _write(asked.work / "new", new, ids)
    add = [] if kind == "remove" else [asked.work / "new"]
    started, used = time.perf_counter(), _processor_s()
    report = api.update(run, out, add=add, remove=remove, matrix=False)
    total, used = time.perf_counter() - started, _processor_s() - used
    if not shown:
        return
    steps = " | ".join(f"{report.seconds.get(step, 0):.2f}" for step in STEPS)
    print(
        f"| {kind} | {len(new):,} | {total:.2f} | {used:.2f} | {steps} | {report.lists:,} |",
        flush=True,
    )
    if asked.matrix:
        started = time.perf_counter()
        report = api.update(run, out, add=add, remove=remove)
        total = time.perf_counter() - started
        steps = ", ".join(f"{step} {report.seconds.get(step, 0):.2f}" for step in AFTER)
        print(f"| after the delta: {steps} | | {total:.2f} | | | | | |", flush=True)


def _processor_s() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def decay(asked: argparse.Namespace, rows: int) -> None:
    """Recall after many updates beside that of a fresh build of the same recordings."""
    each = rows // 100
    data = manifold(rows + asked.updates * each, DIMS)
    _write(asked.work / "vectors", data[:rows], np.arange(rows))
    run = asked.work / "run0"
    api.build(asked.work / "vectors", run, k=K)
    print("| update | rows | recall by the verifier | interval |\n|---|---|---|---|")
    _row(0, run)
    random = np.random.default_rng(7)
    alive = np.arange(rows)
    for number in range(1, asked.updates + 1):
        first = rows + (number - 1) * each
        _write(asked.work / "new", data[first : first + each], np.arange(first, first + each))
        gone = random.choice(alive, each if number % 2 else 0, replace=False)
        alive = np.concatenate([np.setdiff1d(alive, gone), np.arange(first, first + each)])
        after = asked.work / f"run{number}"
        api.update(run, after, add=asked.work / "new", remove=[str(row) for row in gone])
        if number > 1:
            shutil.rmtree(run)
        run = after
        if number % 5 == 0 or number == asked.updates:
            _row(number, run)
    due = api.status(run).rebuild
    print(f"\nstatus: {'; '.join(due) or 'no rebuild is due'}; {api.run_drift(run)}\n", flush=True)
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


def _write(path: Path, vectors: Float32s, ids: NDArray[np.int64]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    write_vector_set(path, vectors, pa.table({"recording_id": ids}), Geometry())


if __name__ == "__main__":
    main()
