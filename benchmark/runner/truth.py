"""The truth: exact neighbours of the rows that are checked, computed once per size and workload.

    OUT/truth/all-N.h5       sampled base rows, each without itself
    OUT/truth/queries-N.h5   the queries, numbered from 0

Owns which rows are checked. They are part files (`nearfield.neighbours`), so a resumed benchmark
keeps them.
"""

from pathlib import Path

import faiss
import numba
import numpy as np

from benchmark.results.outcome import Workload
from benchmark.runner.data import Data
from nearfield.cluster import Task
from nearfield.distances import list_distances, sort_lists
from nearfield.errors import InputRejected, NearfieldError
from nearfield.exact import exact_search
from nearfield.manifest import fingerprint, read_manifest
from nearfield.neighbours import PART_KIND, NeighbourTable, write_part
from nearfield.space import Float32s, Int32s

CHECKED = 1_000
ALL_UP_TO = 2_000
"""With at most so many rows every one is checked."""
AUDITED = 25
"""Queries whose neighbours, where the source brought them, are compared with exact search."""
AUDIT_TOLERANCE = 1e-4
"""Relative: others compute in float32."""


def truth_path(directory: Path, workload: Workload, n: int) -> Path:
    """Where the truth of a workload at size n lies."""
    return directory / "truth" / f"{workload}-{n}.h5"


def checked_rows(workload: Workload, n: int, asked: int) -> Int32s:
    """Rows that are checked, ascending: sampled base rows, or all `asked` queries."""
    if workload == "queries":
        return np.arange(asked, dtype=np.int32)
    if n <= ALL_UP_TO:
        return np.arange(n, dtype=np.int32)
    chosen = np.random.default_rng(n).choice(n, CHECKED, replace=False)
    return np.sort(chosen).astype(np.int32)


def truth_task(directory: Path, data: Data, workload: Workload, n: int, k: int) -> Task | None:
    """The task that computes the truth of a workload at size n for k; None if it is there.

    A truth for a larger k serves a smaller one.
    """
    path = truth_path(directory, workload, n)
    try:
        manifest = read_manifest(path.with_suffix(".json"), kind=PART_KIND)
        if manifest.fingerprint == _mark(data, workload, n) and manifest.facts["k"] >= k:
            return None
    except NearfieldError:
        pass
    name = f"truth of {workload} at {n:,}"
    return Task(name, write_truth, (str(path.resolve()), data, workload, n, k))


def write_truth(path: str, data: Data, workload: Workload, n: int, k: int, *, threads: int) -> None:
    """Task: exact neighbours of the checked rows among the first n, as the part file `path`."""
    faiss.omp_set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    rows = checked_rows(workload, n, data.asked)
    vectors = data.vectors[:n]
    given = data.given if workload == "queries" and n == data.base else None
    if given is not None and given.shape[1] >= k:
        neighbours, distances = _given_lists(given, data)
        neighbours, distances = neighbours[:, :k], distances[:, :k]
    elif workload == "queries":
        queries = np.ascontiguousarray(data.queries)
        neighbours, distances = exact_search(queries, vectors, k, space=data.space)
    else:
        queries = np.ascontiguousarray(vectors[rows])
        neighbours, distances = exact_search(queries, vectors, k, space=data.space, own_rows=rows)
    table = NeighbourTable(rows, neighbours, distances)
    write_part(Path(path), table, fingerprint=_mark(data, workload, n))


def audit_given(data: Data) -> None:
    """Compare some of the neighbours that the source brought with exact search.

    Raises `InputRejected` where they aren't the nearest: recall against them would be wrong.
    """
    given = data.given
    if given is None:
        return
    few = min(AUDITED, len(given))
    _, stated = _given_lists(given, data)
    queries = np.ascontiguousarray(data.queries[:few])
    _, true = exact_search(queries, data.vectors[: data.base], given.shape[1], space=data.space)
    away = np.abs(stated[:few] - true).max(axis=1)
    wrong = np.flatnonzero(away > AUDIT_TOLERANCE * np.abs(true).max(axis=1) + 1e-6)
    if len(wrong):
        raise InputRejected(
            f"the neighbours in the file of {data.name} aren't the nearest of its test query "
            f"{wrong[0]}: exact search finds others. Remove `neighbors` from it, then they are "
            "computed"
        )


def _given_lists(given: Int32s, data: Data) -> tuple[Int32s, Float32s]:
    """Neighbours that the source brought, with distances of our own."""
    queries, near = np.ascontiguousarray(data.queries), np.ascontiguousarray(given)
    vectors = data.vectors[: data.base]
    return sort_lists(near, list_distances(queries, vectors, near, data.space))


def _mark(data: Data, workload: Workload, n: int) -> str:
    return fingerprint(data=data.fingerprint, workload=workload, n=n)
