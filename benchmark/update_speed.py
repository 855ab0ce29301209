"""What an update costs beside a build, and whether many updates lower recall.

    python -m benchmark.update_speed cost --work FOLDER [--rows 1000000] [--add 0.001 0.01]
    python -m benchmark.update_speed decay --work FOLDER [--rows 100000] [--updates 20]

cost: `nearfield build` of generated vectors as a user runs it, then `nearfield update` of the run,
which adds, removes or changes so large a share; each a command from its start to its end, that is
with the program's start, all files written. The run is kept in FOLDER; --build builds again and
states the updates as shares of it. --grown: updates of that run once an update has added such a
share. decay: updates of 1% one after the other (every second one removes as many, too), then one
build of what is there; recall of both by the verifier. Prints Markdown.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmark.datasets.manifold import manifold
from nearfield import api
from nearfield.machine import machine_facts
from nearfield.manifest import library_versions
from nearfield.run import open_run
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, write_vector_set

DIMS, K = 128, 100
STEPS = (
    *("check base", "changes", "cells", "update"),
    *("write vectors, check recall", "write matrix"),
)
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
    parser.add_argument("--grown", type=float, default=0.0, help="Share to add first.")
    parser.add_argument("--no-matrix", action="store_true", help="Stop updates at the delta.")
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
    more = _data(asked.work, rows, asked.grown + max([*asked.add, *asked.change, 0.001]))
    run = asked.work / "run"
    built = None
    if asked.build or not (run / "matrix.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        os.sync()
        built = _timed("build", asked.work / "vectors", "--out", run, "-k", K)
        print(f"nearfield build: {built.wall_s:.1f} s, of processors {built.processor_s:.1f}")
        print(f"\n{json.dumps(built.report['seconds'])}")
    # compiles what was never compiled on this machine, and makes the cells where there are none
    _update(asked, run, "add", more[: max(1, rows // 10_000)])
    if asked.grown:
        run, more = _grown(asked.work, run, more, int(asked.grown * rows))
    print(f"\n| what | rows | wall s | processor s | of the build | {' | '.join(STEPS)} | lists |")
    print(f"|{'---|' * (len(STEPS) + 6)}", flush=True)
    for kind in KINDS:
        for share in getattr(asked, kind):
            for _ in range(asked.repeat):
                new = more[: int(rows * share)]
                _say(kind, len(new), _update(asked, run, kind, new), built)
    shutil.rmtree(asked.work / "update", ignore_errors=True)


@dataclass(frozen=True)
class Timed:
    """What a command took and said."""

    wall_s: float
    processor_s: float
    report: dict[str, Any]


def _timed(*arguments: object) -> Timed:
    """Run a command of nearfield."""
    command = [sys.executable, "-m", "nearfield", *map(str, arguments), "--json"]
    started, used = time.perf_counter(), _children_s()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Timed(time.perf_counter() - started, _children_s() - used, json.loads(done.stdout))


def _say(kind: str, rows: int, took: Timed, built: Timed | None) -> None:
    share = "" if built is None else f"{took.wall_s / built.wall_s:.1%}"
    steps = " | ".join(f"{took.report['seconds'].get(step, 0):.2f}" for step in STEPS)
    print(
        f"| {kind} | {rows:,} | {took.wall_s:.2f} | {took.processor_s:.2f} | {share} | {steps} |"
        f" {took.report['lists']:,} |",
        flush=True,
    )


def _data(work: Path, rows: int, share: float) -> Float32s:
    """The vector set in FOLDER, and vectors that aren't in it."""
    kept = work / "more.npy"
    if not (work / "vectors" / "manifest.json").exists() or not kept.exists():
        data = manifold(rows + max(1_000, int(rows * share)), DIMS)
        _write(work / "vectors", data[:rows], np.arange(rows))
        np.save(kept, data[rows:])
    return np.load(kept)


def _grown(work: Path, run: Path, more: Float32s, count: int) -> tuple[Path, Float32s]:
    """The run with so many more recordings, and the vectors that still aren't in it."""
    grown, n = work / "grown", open_run(run).config.n
    shutil.rmtree(grown, ignore_errors=True)
    _write(work / "new", more[:count], np.arange(n, n + count))
    _timed("update", run, "--add", work / "new", "--out", grown)
    return grown, more[count:]


def _update(asked: argparse.Namespace, run: Path, kind: str, new: Float32s) -> Timed:
    """One update, from the vectors to add or the ids to remove to the new run."""
    rows, out = open_run(run).config.n, asked.work / "update"
    shutil.rmtree(out, ignore_errors=True)
    chosen = np.sort(np.random.default_rng(5).choice(rows, len(new), replace=False))
    if kind == "remove":
        gone = asked.work / "gone.txt"
        gone.write_text("".join(f"{row}\n" for row in chosen))
        what: tuple[object, ...] = ("--remove", gone)
    else:
        ids = chosen if kind == "change" else np.arange(rows, rows + len(new))
        _write(asked.work / "new", new, ids)
        what = ("--add", asked.work / "new")
    later = ("--no-matrix",) if asked.no_matrix else ()
    os.sync()
    return _timed("update", run, *what, "--out", out, *later)


def _children_s() -> float:
    """Processor seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
