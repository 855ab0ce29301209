"""The file of one configuration: what was found and how long each call took, every repetition.

    RESULT.h5    rows int32 [c]; per batch size a group `batch-B` (0: all rows) with times float64
                 [r, calls], neighbours int32 [r, c, k], distances float32 [r, c, k]
    RESULT.json  the manifest, last; its facts hold the rows of the table

Owns the format and the check of it. Refuses to compute anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmark.results.outcome import Outcome
from benchmark.results.table import outcome_from
from nearfield.errors import NearfieldError
from nearfield.files import atomic_path
from nearfield.hdf5 import new_dataset, new_file, stored_bytes
from nearfield.manifest import Manifest, read_manifest, write_manifest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

KIND = "benchmark result"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """All repetitions of one batch size; shapes as in the file. Lists are sorted by distance."""

    times: NDArray[np.float64]
    neighbours: Int32s
    distances: Float32s


@dataclass(frozen=True)
class Result:
    """What one configuration gave: the rows of the table, and what they were computed from.

    rows int32 [c]: which base rows (`all`) or queries were checked.
    """

    outcomes: tuple[Outcome, ...]
    rows: Int32s
    measured: Mapping[int, Measured]


def write_result(path: Path, result: Result, *, fingerprint: str, facts: Mapping[str, Any]) -> None:
    """Write the HDF5 file `path`, then its manifest beside it. Raises `DiskFull`."""
    arrays: list[tuple[str, NDArray[Any], float]] = [("rows", result.rows, EMPTY)]
    for batch, measured in result.measured.items():
        arrays += [
            (f"batch-{batch}/times", measured.times, np.nan),
            (f"batch-{batch}/neighbours", measured.neighbours, EMPTY),
            (f"batch-{batch}/distances", measured.distances, np.inf),
        ]
    room = sum(stored_bytes(values.shape, values.itemsize) for _, values, _ in arrays)
    with atomic_path(path) as temporary, new_file(temporary, room) as file:
        for name, values, fill in arrays:
            new_dataset(file, name, values.shape, values.dtype.str, fill)[...] = values
    outcomes = [asdict(outcome) | {"status": str(outcome.status)} for outcome in result.outcomes]
    write_manifest(
        path.with_suffix(".json"),
        kind=KIND,
        fingerprint=fingerprint,
        format_version=FORMAT_VERSION,
        files=[path.name],
        facts={**facts, "outcomes": outcomes},
    )


def read_outcomes(path: Path, *, verify: bool = True) -> tuple[Manifest, list[Outcome]] | None:
    """Manifest and table rows of the result file `path`; `verify` compares its checksum.

    None when it is missing, cut off, changed or unreadable: it is then measured again.
    """
    try:
        manifest = read_manifest(path.with_suffix(".json"), kind=KIND, verify=verify)
        if manifest.format_version != FORMAT_VERSION:
            return None
        return manifest, [outcome_from(row) for row in manifest.facts["outcomes"]]
    except (NearfieldError, KeyError, TypeError, ValueError):
        return None


def read_measured(path: Path) -> tuple[Int32s, dict[int, Measured]]:
    """Checked rows and, per batch size, everything measured."""
    with h5py.File(path, "r") as file:
        batches = {
            int(name.partition("-")[2]): Measured(
                *(group[part][...] for part in ("times", "neighbours", "distances"))
            )
            for name, group in file.items()
            if name != "rows"
        }
        return file["rows"][...], batches


def result_files(directory: Path) -> Sequence[Path]:
    """The HDF5 files below a benchmark's directory, in order of their names."""
    return sorted((directory / "results").glob("*.h5"))
