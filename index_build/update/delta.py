"""The delta: what an update found out, as files beside the run that it extends.

    RUN2/delta/  rows.npy int32 [m], vectors.npy float32 [m, d]   new and changed recordings
                 recorded.npy int32 [m + r], recordings.parquet   ids and labels: theirs, and of
                                                                  those with other labels alone
                 removed.npy int32                                all rows without a recording
                 listed.npy int32 [q], neighbours.npy, distances.npy [q, k + r]   whole new lists
                 lost.npy int32 [l]                               old lists that lost members
                 entry_rows.npy, entry_neighbours.npy int32, entry_distances.npy float32 [e]
                 homes.npy int32 [m]                              cells of the rows
                 manifest.json                                    kind update; comes last

Owns this format. A list that isn't in `listed` is the old list and its reserve, where it is in
`lost` without members that are away, with its entries merged in, cut to k + r. Refuses to compute
any of it.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index_build.update.known import marked
from index_build.update.visit import Entries
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path
from nearfield.manifest import read_manifest, write_manifest
from nearfield.space import Float32s, Int32s

KIND = "update"
FORMAT_VERSION = 3
RECORDINGS = "recordings.parquet"
ARRAYS = (
    *("rows", "vectors", "recorded", "removed", "listed", "neighbours", "distances", "lost"),
    *("homes", "entry_rows", "entry_neighbours", "entry_distances"),
)


@dataclass(frozen=True)
class Delta:
    """See the module. `facts`: n and columns afterwards, what was counted, fingerprints."""

    rows: Int32s
    vectors: Float32s
    recorded: Int32s
    recordings: pa.Table
    removed: Int32s
    listed: Int32s
    neighbours: Int32s
    distances: Float32s
    lost: Int32s
    entries: Entries
    homes: Int32s
    facts: Mapping[str, Any]

    @property
    def changed_rows(self) -> Int32s:
        """Rows whose list may differ from the old one, is new, or is gone; ascending.

        What enters or leaves a reserve alone counts, too.
        """
        changed = marked(
            int(self.facts["n"]), self.listed, self.lost, self.entries.rows, self._gone
        )
        return np.flatnonzero(changed).astype(np.int32)

    @property
    def away(self) -> NDArray[np.bool_]:
        """Which rows leave the lists that name them: removed now, or with another vector."""
        return marked(int(self.facts["n"]), self._gone, self.rows)

    @property
    def _gone(self) -> Int32s:
        return np.array(self.facts["gone"], np.int32)


def write_delta(folder: Path, delta: Delta, *, fingerprint: str) -> None:
    """Write the delta into `folder`; whatever an interrupted update left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = {
        "entry_rows": delta.entries.rows,
        "entry_neighbours": delta.entries.neighbours,
        "entry_distances": delta.entries.distances,
    }
    for name in ARRAYS:
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, values[name] if name in values else getattr(delta, name))
    with atomic_path(folder / RECORDINGS) as temporary:
        pq.write_table(delta.recordings, temporary, compression="zstd")
    write_manifest(
        folder / "manifest.json",
        kind=KIND,
        fingerprint=fingerprint,
        format_version=FORMAT_VERSION,
        files=[*(f"{name}.npy" for name in ARRAYS), RECORDINGS],
        facts=delta.facts,
    )


def read_delta(folder: Path, *, fingerprint: str | None = None) -> Delta:
    """The delta in `folder`, checked. Raises `MissingFile`, `DamagedArtefact`."""
    manifest = read_manifest(folder / "manifest.json", kind=KIND)
    if manifest.format_version != FORMAT_VERSION:
        raise DamagedArtefact(
            f"expected a delta of format {FORMAT_VERSION}, {folder} has {manifest.format_version}:"
            " it is by another version of nearfield; update the run into another directory"
        )
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise DamagedArtefact(f"{folder} is the delta of another update: remove it")
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
    }
    entries = Entries(*(arrays.pop(f"entry_{name}") for name in Entries.__dataclass_fields__))
    return Delta(
        recordings=pq.read_table(folder / RECORDINGS),
        entries=entries,
        facts=manifest.facts,
        **arrays,
    )


def delta_is_finished(folder: Path, *, fingerprint: str) -> bool:
    """Whether that very delta is there."""
    try:
        manifest = read_manifest(folder / "manifest.json", kind=KIND)
    except (MissingFile, DamagedArtefact):
        return False
    return (manifest.fingerprint, manifest.format_version) == (fingerprint, FORMAT_VERSION)
