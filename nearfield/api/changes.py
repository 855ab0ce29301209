"""What changed: between two runs, since a run was built, and a set without what was removed."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from dumps.changes import ChangeReport, Thresholds, compare_runs
from index_build.update.cells import Drift, drift, read_cells
from nearfield.errors import MissingFile
from nearfield.ingest import check_out
from nearfield.locations import location
from nearfield.lock import locked
from nearfield.run import open_run
from nearfield.vectorset import VectorSet, open_vector_set, write_vector_set


def run_drift(run: Path | str) -> Drift | None:
    """How far a run is from a fresh build, and why one is due; None before the first update."""
    opened = open_run(location(run))
    if not isinstance(opened.path, Path):
        return None  # updates make runs on local paths only
    try:
        manifest = opened.finished_matrix(verify=False)
    except MissingFile:
        return None
    cells = read_cells(opened.path / "cells", fingerprint=manifest.files[opened.matrix.name].sha256)
    return None if cells is None else drift(cells)


def compare(
    run: Path | str,
    run2: Path | str,
    *,
    sample: int = 100_000,
    min_overlap: float | None = None,
    max_shift: float | None = None,
    max_removed: float | None = None,
) -> ChangeReport:
    """What differs between two finished runs; `ChangeReport.alarms` says which threshold passed."""
    thresholds = Thresholds(min_overlap, max_shift, max_removed)
    return compare_runs(open_run(Path(run)), open_run(Path(run2)), thresholds, sample=sample)


def compact(vectors: Path | str, out: Path | str) -> VectorSet:
    """Write a vector set without its removed recordings, to build from: rows are renumbered.

    Raises `UsageError` where `out` is the set itself, or holds anything that isn't a vector set.
    """
    old = open_vector_set(Path(vectors))
    check_out(Path(out), old.path)
    keep = np.ones(old.n, bool)
    keep[old.removed] = False
    facts = {name: value for name, value in old.manifest.facts.items() if name not in ("n", "d")}
    with locked(Path(out)):
        return write_vector_set(
            Path(out),
            np.ascontiguousarray(old.vectors[keep]),
            old.recordings.filter(pa.array(keep)),
            old.geometry,
            facts | {"removed": 0, "compacted": old.fingerprint},
        )
