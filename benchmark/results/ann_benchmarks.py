"""The results in the layout of ann-benchmarks, for its `plot.py` and `data_export.py`.

    EXPORT/data/DATASET.hdf5                                    queries, neighbours, distances
    EXPORT/results/DATASET/COUNT/ALGORITHM/ARGUMENTS.hdf5       one per measured point

The programs of ann-benchmarks, started in EXPORT, read it. Owns that layout. Times, neighbours and
distances are those of the median repetition. Left out are the workload `all`, which has no place
there, and points under a memory limit. DATASET is the data set's name for all base rows, NAME-N for
a sample; its file has no `train`, which neither program reads.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmark.results.file import read_measured
from benchmark.results.outcome import Outcome
from nearfield.files import atomic_path
from nearfield.neighbours import read_part
from nearfield.space import Float32s, SpaceName

EXPORT = "ann-benchmarks"
DISTANCES: dict[SpaceName, str] = {"l2": "euclidean", "cosine": "angular", "ip": "ip"}


def export_results(
    directory: Path, queries: Float32s, outcomes: Iterable[Outcome], *, base: int
) -> Path:
    """Write the export of the benchmark in `directory`, replacing an earlier one; returns it.

    queries: float32 [q, d], as searched. base: rows of the whole set.
    """
    target = directory / EXPORT
    shutil.rmtree(target, ignore_errors=True)
    wanted = [
        outcome
        for outcome in outcomes
        if outcome.measured and outcome.workload == "queries" and not outcome.memory_limit_bytes
    ]
    for n in sorted({outcome.n for outcome in wanted}):
        here = [outcome for outcome in wanted if outcome.n == n]
        dataset = here[0].dataset if n == base else f"{here[0].dataset}-{n}"
        _write_dataset(target, dataset, directory / "truth" / f"queries-{n}.h5", queries, here[0])
        for outcome in here:
            _write_point(target, dataset, directory, outcome)
    return target


def _write_dataset(
    target: Path, dataset: str, truth: Path, queries: Float32s, outcome: Outcome
) -> None:
    table = read_part(truth)
    with (
        atomic_path(target / "data" / f"{dataset}.hdf5") as temporary,
        h5py.File(temporary, "w") as file,
    ):
        file.attrs["type"], file.attrs["point_type"] = "dense", "float"
        file.attrs["distance"], file.attrs["dimension"] = DISTANCES[outcome.space], outcome.d
        file["test"] = queries
        file["neighbors"] = table.neighbours
        file["distances"] = table.distances


def _write_point(target: Path, dataset: str, directory: Path, outcome: Outcome) -> None:
    measured = read_measured(directory / outcome.file)[1][outcome.batch]
    chosen = outcome.repetition or 0
    neighbours, distances = measured.neighbours[chosen], measured.distances[chosen]
    batched = outcome.batch > 1
    algorithm = outcome.method + (f"-batch-{outcome.batch}" if batched else "")
    arguments = re.sub(r"\W+", "_", f"{outcome.build}_{outcome.search}").strip("_") or "default"
    place = target / "results" / dataset / str(outcome.k) / algorithm / f"{arguments}.hdf5"
    times = _per_query(measured.times[chosen], len(neighbours), outcome.batch)
    attributes = {
        "batch_mode": batched,
        "best_search_time": float(times.mean()),
        "candidates": float((neighbours >= 0).sum(axis=1).mean()),
        "expect_extra": False,
        "name": outcome.label,
        "run_count": len(measured.times),
        "distance": DISTANCES[outcome.space],
        "count": outcome.k,
        "build_time": outcome.build_s or 0.0,
        "index_size": (outcome.index_bytes or 0) / 1024,
        "algo": algorithm,
        "dataset": dataset,
    }
    with atomic_path(place) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(attributes)
        file.create_dataset("times", data=times, dtype="f4")
        file.create_dataset("neighbors", data=neighbours, dtype="i4")
        file.create_dataset("distances", data=distances, dtype="f4")


def _per_query(calls: NDArray[np.float64], queries: int, batch: int) -> NDArray[np.float64]:
    """Seconds of each query: its share of the call that answered it."""
    sizes = np.full(len(calls), batch)
    sizes[-1] = queries - batch * (len(calls) - 1)
    return np.repeat(calls / sizes, sizes)
