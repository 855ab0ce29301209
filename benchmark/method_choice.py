"""Which method builds the matrix of how many vectors in the least time: what `auto` rests on.

    python -m benchmark.method_choice [--rows 5000 20000 50000 100000 300000] [--dims 93] [-k 100]
    python -m benchmark.method_choice --rows 100000 --latent 18 64 256 0

Every method joins the same generated vectors in one process, with all cores, at the same asked
recall; the recall that it reached is measured by exact search for 500 rows that the methods don't
know of. `--latent`: dimensions that the vectors really vary in, of which partition and graphs
suffer; 0: independent normal numbers, which have no structure at all. Methods take turns,
`--repeat` times; every repetition is kept. Prints Markdown.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmark.datasets.manifold import LATENT_DIMENSIONS, manifold
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
    vectors: Float32s, methods: Sequence[str], asked: Asked, repeat: int
) -> dict[str, tuple[list[float], float]]:
    """For each method its seconds, one per repetition, and the lowest recall that it reached."""
    rows = len(vectors)
    checked = np.random.default_rng(99).choice(rows, CHECKED_ROWS, replace=False).astype(np.int32)
    _, truth = exact_search(vectors[checked], vectors, asked.k, space="l2", own_rows=checked)
    joins: dict[str, Callable[[], Float32s]] = {
        name: lambda name=name: joined(name, vectors, asked)[1]  # type: ignore[misc]
        for name in methods
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
    parser.add_argument("--latent", type=int, nargs="+", default=[LATENT_DIMENSIONS])
    parser.add_argument("--methods", nargs="+", default=MEASURED)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--repeat", type=int, default=2)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _arguments(given)
    asked = Asked(options.k, "l2", options.recall, available_cores(), 0)
    measured(manifold(2_000, options.dims), options.methods, asked, 1)  # compiles the kernels
    machine = machine_facts()
    print(f"{machine.processor.model}, {machine.cores} cores; {json.dumps(library_versions())}")
    print(f"\nd = {options.dims}, k = {options.k}, asked recall {options.recall}\n")
    print("| rows | latent | method | seconds (median) | all | recall |")
    print("|---|---|---|---|---|---|")
    for rows, latent in itertools.product(options.rows, options.latent):
        if latent:
            vectors = manifold(rows, options.dims, latent=latent)
        else:
            vectors = np.random.default_rng(0).standard_normal((rows, options.dims), np.float32)
        found = measured(vectors, options.methods, asked, options.repeat)
        for name, (seconds, recall) in found.items():
            every = " ".join(f"{value:.2f}" for value in seconds)
            cells = f"{rows:,} | {latent} | {name} | {statistics.median(seconds):.2f} | {every}"
            print(f"| {cells} | {recall:.4f} |", flush=True)


if __name__ == "__main__":
    main()
