"""The vector set after an update: the old one with vectors in their places, others at its end.

Owns how ids and labels are put together. Writes through `nearfield.vectorset`; memory: one block of
vectors, ids and labels.
"""

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_build.update.delta import Delta
from nearfield.ingest.labels import stacked
from nearfield.space import Float32s
from nearfield.vectorset import VectorSet, write_vector_set


def write_updated_set(path: Path, old: VectorSet, delta: Delta, *, update: str) -> VectorSet:
    """Write the vector set of the run that the delta makes; `update` identifies it in the facts."""
    facts = {name: value for name, value in old.manifest.facts.items() if name not in ("n", "d")}
    facts |= {
        "extended": old.fingerprint,
        "update": update,
        "removed": len(delta.removed),
        **{name: delta.facts[name] for name in ("added", "changed", "unchanged", "returned")},
    }
    vectors = cast(Float32s, _Patched(old.vectors, delta, int(delta.facts["n"])))
    return write_vector_set(
        path,
        vectors,
        _recordings(old.recordings, delta),
        old.geometry,
        facts,
        removed=np.asarray(delta.removed),
    )


class _Patched:
    """Looks like an array float32 [n, d] to whoever takes blocks of rows of it."""

    def __init__(self, old: Float32s, delta: Delta, n: int) -> None:
        self.old, self.delta = old, delta
        self.shape, self.dtype, self.ndim, self.itemsize = (n, old.shape[1]), old.dtype, 2, 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Float32s:
        first, stop, _ = part.indices(len(self))
        out = np.empty((stop - first, self.shape[1]), np.float32)
        there = self.old[first : min(stop, len(self.old))]
        out[: len(there)] = there
        low, high = np.searchsorted(self.delta.rows, (first, stop))
        out[self.delta.rows[low:high] - first] = self.delta.vectors[low:high]
        return out


def _recordings(old: pa.Table, delta: Delta) -> pa.Table:
    """Ids and labels in row order; a new label replaces an old one unless it is null."""
    new, n, old_n = delta.recordings, int(delta.facts["n"]), len(old)
    source = np.full(n, -1)
    source[delta.rows] = np.arange(len(delta.rows))
    take = pa.array(source, mask=source < 0)
    names = dict.fromkeys((*old.column_names, *(new.column_names if len(new) else ())))
    columns = {}
    for name in names:
        before = _column(old, name)
        after = _column(new, name) if len(new) else pa.chunked_array([pa.nulls(0)])
        kind = next((it.type for it in (before, after) if it.type != pa.null()), pa.null())
        if len({before.type, after.type} - {pa.null()}) > 1:
            kind = pa.string()
        before = stacked([before.cast(kind), pa.chunked_array([pa.nulls(n - old_n, kind)])])
        columns[name] = pc.coalesce(after.cast(kind).take(take), before)
    return pa.table(columns)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(len(table))])
