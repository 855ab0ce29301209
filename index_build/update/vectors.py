"""The vector set after an update: the old one with vectors in their places, others at its end.

Owns how ids and labels are put together. All of it is known before anything is searched, so that
it can be written meanwhile. Writes through `nearfield.vectorset`; memory: one block of vectors, ids
and labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast

import numpy as np
import pyarrow as pa

from index_build.update.change import Change
from index_build.update.delta import Delta
from index_build.update.known import within
from nearfield.errors import Infrastructure
from nearfield.ingest.labels import placed
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import ID_COLUMN, VectorSet, write_vector_set

COUNTS = ("added", "changed", "unchanged", "returned", "relabelled")


@dataclass(frozen=True)
class Patch:
    """What an update does to the vector set.

    rows int32 [m] ascending get vectors float32 [m, d]; recorded int32 [m + r], these and the
    relabelled ones, get recordings (ids and labels). removed int32: all rows without a recording
    afterwards. n: rows afterwards; counts: by `COUNTS`.
    """

    rows: Int32s
    vectors: Float32s
    recorded: Int32s
    recordings: pa.Table
    removed: Int32s
    n: int
    counts: Mapping[str, int]


def patch_of(change: Change, base: VectorSet, add: VectorSet | None) -> Patch:
    """The patch that brings the change of `base`, with the vectors of `add`."""
    vectors = np.empty((0, base.d), np.float32)
    recordings = base.recordings.slice(0, 0)
    if add is not None:
        vectors = np.ascontiguousarray(add.vectors[change.source])
        recordings = add.recordings.take(np.concatenate([change.source, change.labels_from]))
        # without ids of their own they are numbered on
        at = recordings.column_names.index(ID_COLUMN)
        recordings = recordings.set_column(at, ID_COLUMN, change.ids)
    counts = {name: getattr(change, name) for name in COUNTS}
    return Patch(
        change.rows, vectors, change.recorded, recordings, change.removed, change.n, counts
    )


def patch_in(delta: Delta) -> Patch:
    """The patch that a delta was made with."""
    counts = {name: int(delta.facts[name]) for name in COUNTS}
    return Patch(
        delta.rows, delta.vectors, delta.recorded, delta.recordings, np.asarray(delta.removed),
        int(delta.facts["n"]), counts,
    )  # fmt: skip


def write_updated_set(
    path: Path, old: VectorSet, patch: Patch, *, update: str, abandoned: Event | None = None
) -> VectorSet:
    """Write the old vector set as the patch leaves it; `update` identifies it in the facts.

    Raises `Infrastructure` soon after `abandoned` is set; nothing is written then.
    """
    facts: dict[str, Any] = {
        name: value for name, value in old.manifest.facts.items() if name not in ("n", "d")
    }
    facts |= {
        "extended": old.fingerprint,
        "update": update,
        "removed": len(patch.removed),
        **patch.counts,
    }
    vectors = cast(Float32s, _Patched(old.vectors, patch, abandoned))
    recordings = placed(old.recordings, patch.recordings, patch.recorded, patch.n)
    return write_vector_set(path, vectors, recordings, old.geometry, facts, removed=patch.removed)


class _Patched:
    """Looks like an array float32 [n, d] to whoever takes blocks of rows of it."""

    def __init__(self, old: Float32s, patch: Patch, abandoned: Event | None) -> None:
        self.old, self.patch, self.abandoned = old, patch, abandoned
        self.shape, self.dtype, self.ndim, self.itemsize = (patch.n, old.shape[1]), old.dtype, 2, 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Float32s:
        if self.abandoned is not None and self.abandoned.is_set():
            raise Infrastructure("the update that this set was written for has ended")
        first, stop, _ = part.indices(len(self))
        out = np.empty((stop - first, self.shape[1]), np.float32)
        there = self.old[first : min(stop, len(self.old))]
        out[: len(there)] = there
        low, high = within(self.patch.rows, first, stop)
        out[self.patch.rows[low:high] - first] = self.patch.vectors[low:high]
        return out
