"""Which method builds the matrix of how many vectors in the least time: what `auto` rests on.

    python -m benchmark.method_choice [--rows 5000 20000 50000 100000 300000] [--dims 93] [-k 100]

Every method joins the same generated vectors in one process, with all cores, at the same asked
recall; the recall that it reached is measured by exact search for 500 rows that the methods don't
know of. Methods take turns, `--repeat` times; every repetition is kept. Prints Markdown.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmark.datasets.manifold import manifold
from benchmark.methods import Asked
from benchmark.methods.base import tie_aware_recall
from index_build.joining import joined
from nearfield.exact import exact_search
from nearfield.machine import available_cores, machine_facts
from nearfield.manifest import library_versions
from nearfield.space import Float32s

MEASURED = ("selfjoin", "faiss-hnsw", "faiss-ivf", "annoy", "nmslib-hnsw")
CHECKED_ROWS = 500
EXACT_AT_MOST = 100_000


def measured(
    rows: int, dims: int, asked: Asked, repeat: int
) -> dict[str, tuple[list[float], float]]:
    """For each method its seconds, one per repetition, and the lowest recall that it reached."""
    vectors = manifold(rows, dims)
    checked = np.random.default_rng(99).choice(rows, CHECKED_ROWS, replace=False).astype(np.int32)
    _, truth = exact_search(vectors[checked], vectors, asked.k, space="l2", own_rows=checked)
    joins: dict[str, Callable[[], Float32s]] = {
        name: lambda name=name: joined(name, vectors, asked)[1]  # type: ignore[misc]
        for name in MEASURED
    }
    if rows <= EXACT_AT_MOST:
        every = np.arange(rows, dtype=np.int32)
        joins["exact"] = lambda: exact_search(
            vectors, vectors, asked.k, space="l2", own_rows=every
        )[1]
    found: dict[str, tuple[list[float], float]] = {}
    for _ in range(repeat):
        for name, join in joins.items():
            started = time.perf_counter()
            distances = join()
            seconds = [*found.get(name, ([], 1.0))[0], time.perf_counter() - started]
            recall = tie_aware_recall(distances[checked], truth)
            found[name] = seconds, min(recall, found.get(name, ([], 1.0))[1])
    return found


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000, 50_000, 100_000])
    parser.add_argument("--dims", type=int, default=93)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--repeat", type=int, default=2)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _arguments(given)
    asked = Asked(options.k, "l2", options.recall, available_cores(), 0)
    measured(2_000, options.dims, asked, 1)  # compiles the kernels
    machine = machine_facts()
    print(f"{machine.processor.model}, {machine.cores} cores; {json.dumps(library_versions())}")
    print(f"\nd = {options.dims}, k = {options.k}, asked recall {options.recall}\n")
    print("| rows | method | seconds (median) | all | recall |\n|---|---|---|---|---|")
    for rows in options.rows:
        for name, (seconds, recall) in measured(rows, options.dims, asked, options.repeat).items():
            every = " ".join(f"{value:.2f}" for value in seconds)
            print(
                f"| {rows:,} | {name} | {statistics.median(seconds):.2f} | {every} | {recall:.4f} |"
            )


if __name__ == "__main__":
    main()
