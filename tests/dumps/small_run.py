"""Small finished runs with exact lists from a brute force of their own."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from dumps.matrix import FORMAT_VERSION, write_matrix
from nearfield.manifest import write_manifest
from nearfield.run import MATRIX_KIND, Run, RunConfig, create_run
from nearfield.vectorset import Geometry, write_vector_set

Lists = tuple[np.ndarray, np.ndarray]


def exact_lists(vectors: np.ndarray, k: int, space: str) -> Lists:
    """The k smallest of every row by (distance as float32, row), from all pairs in float64."""
    wide = vectors.astype(np.float64)
    if space == "cosine":
        wide = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    if space == "ip":
        found = -(wide @ wide.T)
    else:
        squared = ((wide[:, None, :] - wide[None, :, :]) ** 2).sum(axis=2)
        found = squared / 2 if space == "cosine" else np.sqrt(squared)
    found = found.astype(np.float32)
    lists = [
        sorted(
            (row for row in range(len(found)) if row != own),
            key=lambda row, own=own: (found[own, row], row),
        )[:k]
        for own in range(len(found))
    ]
    neighbours = np.array(lists, np.int32)
    return neighbours, np.take_along_axis(found, neighbours, axis=1)


def small_config(n: int, k: int, **changes: Any) -> RunConfig:
    """A configuration for tests that need no vectors."""
    chosen = {
        "vectors": "vectors", "vectors_fingerprint": "0" * 16, "n": n, "d": 4, "space": "l2",
        "k": k, "recall": 0.95, "method": "exact", "seed": 0,
    }  # fmt: skip
    return RunConfig(**(chosen | changes))


def small_run(
    folder: Path,
    vectors: np.ndarray,
    *,
    space: str = "l2",
    k: int = 5,
    lists: Lists | None = None,
    labels: Mapping[str, list[Any]] | None = None,
) -> Run:
    """A vector set and a run with a finished matrix of it; `lists` default to the exact ones."""
    n = len(vectors)
    recordings = pa.table({"recording_id": [f"id-{row}é" for row in range(n)], **(labels or {})})
    vector_set = write_vector_set(folder / "vectors", vectors, recordings, Geometry(space))
    config = small_config(
        n,
        k,
        vectors=str(vector_set.path),
        vectors_fingerprint=vector_set.fingerprint,
        d=vectors.shape[1],
        space=space,
    )
    run = create_run(folder / "run", config)
    lists = lists or exact_lists(vectors, config.columns, space)
    write_matrix(run, in_blocks(lists, 7), vector_set.id_stream, attributes={"method": "exact"})
    return run


def in_blocks(lists: Lists, rows: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Consecutive blocks of lists."""
    for first in range(0, len(lists[0]), rows):
        yield first, lists[0][first : first + rows], lists[1][first : first + rows]


def alter(run: Run, change: Callable[[h5py.File], None]) -> None:
    """Change the matrix file behind its writer's back and make its manifest agree with it."""
    with h5py.File(run.matrix, "r+") as file:
        change(file)
    agree(run)


def agree(run: Run) -> None:
    """Make the manifest agree with the matrix file as it is."""
    write_manifest(
        run.matrix.with_suffix(".json"),
        kind=MATRIX_KIND,
        fingerprint=run.config.fingerprint,
        format_version=FORMAT_VERSION,
        files=[run.matrix.name],
        facts={},
    )
