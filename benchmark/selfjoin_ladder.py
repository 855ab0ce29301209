"""The self-join measured: a ladder of recall, growth with n, where the time goes, peak memory.

    python -m benchmark.selfjoin_ladder --rows 100000 300000 1000000 --recall 0.8 0.95 --out DIR

Every measurement runs in a process of its own on generated manifold data; its recall is measured
by brute force (faiss, no code shared with the join) on a sample of rows. The working set is the
peak of resident memory during the join, less what was resident before it (vectors among it) and
less the output; where it passes memory_bytes the report says so and the command ends with 1. Writes
ladder.json after each measurement, skips what is there already, and ladder.md from it. Refuses
other methods.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
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
from nearfield.space import Float32s, Int32s, SpaceName

CHECKED_ROWS = 1_000
TIE = 1e-6
MEMORY = 2 << 30


@dataclass(frozen=True)
class Case:
    """One measurement to make."""

    n: int
    d: int
    k: int
    recall: float
    threads: int
    seed: int = 0
    space: SpaceName = "l2"


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
    working_bytes: int = 0
    load: float = 0.0

    @property
    def within_bound(self) -> bool:
        """Whether the join kept to `MEMORY` beside vectors and output."""
        return self.working_bytes <= MEMORY


def measured(case: Case) -> Measured:
    """Measure one case in this process. Compiled kernels are loaded before the clock starts."""
    vectors = manifold(case.n, case.d, seed=case.seed)
    knn_matrix(vectors[:20_000], 10, space=case.space, recall=0.8, threads=case.threads)
    resident, load = resident_bytes(), os.getloadavg()[0]
    started, cpu_started = time.monotonic(), time.process_time()
    found = knn_matrix(
        vectors,
        case.k,
        space=case.space,
        recall=case.recall,
        threads=case.threads,
        seed=case.seed,
        memory_bytes=MEMORY,
    )
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    peak, output = peak_bytes(), found.neighbours.nbytes + found.distances.nbytes
    shares = found_shares(vectors, found, space=case.space, seed=case.seed)
    return Measured(
        case=case,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        phases=found.report.seconds,
        chosen=found.report.chosen,
        recall=float(shares.mean()),
        recall_error=float(shares.std() / math.sqrt(len(shares))),
        peak_bytes=peak,
        held_bytes=vectors.nbytes + output,
        working_bytes=max(0, peak - resident - output),
        load=load,
    )


def resident_bytes() -> int:
    """Memory resident now; from here on `peak_bytes` counts anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_bytes() -> int:
    """Most memory that was resident since `resident_bytes`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def found_shares(
    vectors: Float32s, found: NeighbourMatrix, *, space: SpaceName = "l2", seed: int = 0
) -> Float32s:
    """Tie-aware recall of each sampled row, by faiss' exact search; for l2 and ip."""
    rows = checked_rows(len(vectors), seed)
    return shares_of(vectors, rows, found.distances[rows], space=space)


def checked_rows(n: int, seed: int) -> Int32s:
    """The sampled rows."""
    random = np.random.default_rng((seed, 77))
    return random.choice(n, min(CHECKED_ROWS, n), replace=False).astype(np.int32)


def shares_of(
    vectors: Float32s, rows: Int32s, distances: Float32s, *, space: SpaceName
) -> Float32s:
    """Tie-aware recall of each of the rows, whose found `distances` [m, k] are given."""
    k = distances.shape[1]
    if space == "ip":
        kth = -_other_products(vectors, rows, k)
    else:
        squared, _ = faiss.knn(vectors[rows], vectors, k + 1)
        kth = np.sqrt(np.maximum(squared[:, k], 0))
    return (distances <= (kth + 10 * TIE * np.abs(kth))[:, None]).mean(axis=1)


def _other_products(vectors: Float32s, rows: Int32s, k: int) -> Float32s:
    """The k-th largest product of each row with another: a row needn't be nearest to itself."""
    products, ids = faiss.knn(vectors[rows], vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    itself = (ids[:, :k] == rows[:, None]).any(axis=1)
    return np.where(itself, products[:, k], products[:, k - 1])


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


def growth(results: list[Measured]) -> dict[tuple[SpaceName, int, float], tuple[float, float]]:
    """Exponents of wall and processor seconds in n for each (space, d, recall), by least
    squares on logarithms.
    """
    alike = {(r.case.space, r.case.d, r.case.recall) for r in results}
    exponents = {}
    for key in sorted(alike):
        own = [r for r in results if (r.case.space, r.case.d, r.case.recall) == key]
        if len({result.case.n for result in own}) > 1:
            logs = np.log([[r.case.n, r.seconds, r.cpu_seconds] for r in own])
            wall, processor = np.polyfit(logs[:, 0], logs[:, 1:], 1)[0]
            exponents[key] = float(wall), float(processor)
    return exponents


def table(results: list[Measured], facts: dict[str, Any]) -> str:
    """The report as Markdown."""
    phases = list(dict.fromkeys(name for result in results for name in result.phases))
    head = ["space", "n", "d", "k", "seed", "asked", "recall", "wall s", "CPU s", "us/row",
            "pairs/row", "peak MiB", "of it data MiB", "working set MiB", "load",
            *phases]  # fmt: skip
    lines = ["# Self-join: the ladder", "", "Machine: " + json.dumps(facts), ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(_cells(result, phases)) + " |" for result in results]
    lines += [
        "",
        "us/row: processor microseconds. Phases: wall seconds. Load: of the machine before",
    ]
    lines += [
        f"the join started. memory_bytes: {MEMORY >> 20:,} MiB, to compare the working set with.",
        "",
    ]
    lines += [
        f"Growth in n, {space}, d = {d}, recall {recall}: exponent {wall:.2f} of wall seconds, "
        f"{processor:.2f} of processor seconds"
        for (space, d, recall), (wall, processor) in growth(results).items()
    ]
    return "\n".join(lines) + "\n"


def _cells(result: Measured, phases: list[str]) -> list[str]:
    case = result.case
    return [
        case.space, f"{case.n:,}", str(case.d), str(case.k), str(case.seed), str(case.recall),
        f"{result.recall:.4f} ± {result.recall_error:.4f}",
        f"{result.seconds:.1f}", f"{result.cpu_seconds:.1f}",
        f"{1e6 * result.cpu_seconds / case.n:.1f}",
        f"{result.chosen.get('pairs per point', case.n):,.0f}",
        f"{result.peak_bytes / 2**20:,.0f}", f"{result.held_bytes / 2**20:,.0f}",
        f"{result.working_bytes / 2**20:,.0f}" + " (beyond)" * (not result.within_bound),
        f"{result.load:.1f}",
        *(f"{result.phases.get(name, 0):.2f}" for name in phases),
    ]  # fmt: skip


def main() -> None:
    """Measure the cases of the command line and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--space", choices=("l2", "ip"), default="l2")
    parser.add_argument("--recall", type=float, nargs="+", default=[0.80, 0.90, 0.95, 0.99])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    facts, results = machine(), kept(asked.out / "ladder.json")
    for n, recall, seed in itertools.product(asked.rows, asked.recall, asked.seeds):
        case = Case(
            n, asked.dims, asked.k, recall, threads=asked.threads, seed=seed, space=asked.space
        )
        if any(result.case == case for result in results):
            continue
        results.append(measured_apart(case))
        results.sort(key=lambda r: (r.case.d, r.case.n, r.case.recall, r.case.seed))
        every = {"machine": facts, "results": [asdict(result) for result in results]}
        write_bytes(asked.out / "ladder.md", table(results, facts).encode())
        write_bytes(asked.out / "ladder.json", json.dumps(every, indent=1).encode())
        print(case, flush=True)
    beyond = [result.case for result in results if not result.within_bound]
    if beyond:
        raise SystemExit(f"expected a working set of at most {MEMORY:,} bytes; passed by {beyond}")


def kept(path: Path) -> list[Measured]:
    """The measurements of an earlier call, which aren't repeated."""
    if not path.exists():
        return []
    found = json.loads(path.read_bytes())["results"]
    return [Measured(**{**result, "case": Case(**result["case"])}) for result in found]


if __name__ == "__main__":
    main()
