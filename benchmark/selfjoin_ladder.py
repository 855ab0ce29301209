"""The self-join measured: a ladder of recall, growth with n, where the time goes, peak memory.

    python -m benchmark.selfjoin_ladder --rows 100000 300000 1000000 --recall 0.8 0.95 --out DIR

Every measurement runs in a process of its own on generated manifold data; its recall is measured
by brute force (faiss, no code shared with the join) on a sample of rows. Writes ladder.json and
ladder.md. Refuses other methods.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import llvmlite.binding as llvm
import numpy as np

from benchmark.datasets.manifold import manifold
from index_build.selfjoin import NeighbourMatrix, knn_matrix
from nearfield.files import write_bytes
from nearfield.space import Float32s

CHECKED_ROWS = 1_000
TIE = 1e-6


@dataclass(frozen=True)
class Case:
    """One measurement to make."""

    n: int
    d: int
    k: int
    recall: float
    threads: int
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """What came out: seconds by the wall clock, processor seconds of all threads, peak resident
    memory of the process, and recall with its standard error.
    """

    case: Case
    seconds: float
    cpu_seconds: float
    phases: dict[str, float]
    chosen: dict[str, float]
    recall: float
    recall_error: float
    peak_bytes: int
    held_bytes: int


def measured(case: Case) -> Measured:
    """Measure one case in this process. Compiled kernels are loaded before the clock starts."""
    vectors = manifold(case.n, case.d, seed=case.seed)
    knn_matrix(vectors[:20_000], 10, recall=0.8, threads=case.threads)
    started, cpu_started = time.monotonic(), time.process_time()
    found = knn_matrix(vectors, case.k, recall=case.recall, threads=case.threads, seed=case.seed)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shares = found_shares(vectors, found, seed=case.seed)
    return Measured(
        case=case,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        phases=found.report.seconds,
        chosen=found.report.chosen,
        recall=float(shares.mean()),
        recall_error=float(shares.std() / math.sqrt(len(shares))),
        peak_bytes=peak,
        held_bytes=vectors.nbytes + found.neighbours.nbytes + found.distances.nbytes,
    )


def found_shares(vectors: Float32s, found: NeighbourMatrix, *, seed: int) -> Float32s:
    """Tie-aware recall of each sampled row, by faiss' exact search."""
    random = np.random.default_rng((seed, 77))
    rows = random.choice(len(vectors), min(CHECKED_ROWS, len(vectors)), replace=False)
    k = found.neighbours.shape[1]
    squared, _ = faiss.knn(vectors[rows], vectors, k + 1)
    kth = np.sqrt(np.maximum(squared[:, k], 0))
    return (found.distances[rows] <= kth[:, None] * (1 + 10 * TIE)).mean(axis=1)


def measured_apart(case: Case) -> Measured:
    """`measured` in a fresh process, so that peaks and caches don't mix."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (case,))


def machine() -> dict[str, Any]:
    """Facts that a figure can't be read without."""
    return {
        "processor": llvm.get_host_cpu_name(),
        "avx512": bool(llvm.get_host_cpu_features().get("avx512f")),
        "cores": os.cpu_count(),
        "load before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "llvmlite", "faiss-cpu")},
    }


def growth(results: list[Measured]) -> dict[float, float]:
    """Exponent of processor seconds in n for each recall, by least squares on logarithms."""
    exponents = {}
    for recall in sorted({result.case.recall for result in results}):
        own = [result for result in results if result.case.recall == recall]
        if len({result.case.n for result in own}) > 1:
            logs = np.log([[result.case.n, result.cpu_seconds] for result in own])
            exponents[recall] = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    return exponents


def table(results: list[Measured], facts: dict[str, Any]) -> str:
    """The report as Markdown."""
    phases = list(dict.fromkeys(name for result in results for name in result.phases))
    head = ["n", "d", "k", "asked", "recall", "wall s", "CPU s", "us/row", "pairs/row",
            "peak MiB", "of it data MiB", *phases]  # fmt: skip
    lines = ["# Self-join: the ladder", "", "Machine: " + json.dumps(facts), ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(_cells(result, phases)) + " |" for result in results]
    lines += ["", "us/row: processor microseconds. Phases: wall seconds."]
    lines += [f"Growth in n at recall {r}: exponent {e:.2f}" for r, e in growth(results).items()]
    return "\n".join(lines) + "\n"


def _cells(result: Measured, phases: list[str]) -> list[str]:
    case = result.case
    return [
        f"{case.n:,}", str(case.d), str(case.k), str(case.recall),
        f"{result.recall:.4f} ± {result.recall_error:.4f}",
        f"{result.seconds:.1f}", f"{result.cpu_seconds:.1f}",
        f"{1e6 * result.cpu_seconds / case.n:.1f}",
        f"{result.chosen.get('pairs per point', case.n):,.0f}",
        f"{result.peak_bytes / 2**20:,.0f}", f"{result.held_bytes / 2**20:,.0f}",
        *(f"{result.phases.get(name, 0):.2f}" for name in phases),
    ]  # fmt: skip


def main() -> None:
    """Measure the cases of the command line and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--recall", type=float, nargs="+", default=[0.80, 0.90, 0.95, 0.99])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    facts, results = machine(), []
    for n in asked.rows:
        for recall in asked.recall:
            results.append(
                measured_apart(Case(n, asked.dims, asked.k, recall, threads=asked.threads))
            )
            report = table(results, facts)
            write_bytes(asked.out / "ladder.md", report.encode())
            every = {"machine": facts, "results": [asdict(result) for result in results]}
            write_bytes(asked.out / "ladder.json", json.dumps(every, indent=1).encode())
            print(report.splitlines()[5 + len(results)])


if __name__ == "__main__":
    main()
