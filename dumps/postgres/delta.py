"""Loading a run that an update made: unchanged lists are copied inside the server, the others sent.

The new run fills tables of its own, as any other, so nothing that it has can be changed by the last
one and rollback is the same move of the pointer (docs/adr/0008-updates.md). Owns which rows changed
and one chunk's filling; refuses everything before and after that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg2 import sql

from dumps.postgres.encode import HEADER, TRAILER, ListEncoder, record_type
from dumps.postgres.partition import BLOCK_BYTES, Chunk, Copied, copy_in, create_lists, leaf
from dumps.postgres.source import Source, check_lists
from nearfield.errors import NearfieldError
from nearfield.manifest import read_manifest
from nearfield.progress import Advance
from nearfield.run import UPDATE, Run
from nearfield.space import Int32s

DELTA_KIND = "update"
CHANGED = "listed.npy", "lost.npy", "entry_rows.npy"
"""Files of the delta with rows whose lists may differ: new or searched again; without members that
were removed; entered by new ones."""


@dataclass(frozen=True)
class LoadedBase:
    """A loaded run whose lists are those of the new one, but for the rows `changed`, ascending."""

    run_id: int
    changed: Int32s


def loaded_base(cursor: Any, run: Run, source: Source) -> LoadedBase | None:
    """The loaded run that `run` was updated from, or None: then all lists are sent."""
    try:
        frozen = json.loads((run.folder / UPDATE).read_bytes())
        manifest = read_manifest(run.folder / "delta" / "manifest.json", kind=DELTA_KIND)
        made_by = run.finished_matrix(verify=False).facts.get("update")
    except (NearfieldError, OSError, ValueError):
        return None
    # a matrix that was built in that directory has nothing to do with the delta
    if not manifest.fingerprint == made_by == frozen["fingerprint"]:
        return None
    if not set(CHANGED) <= set(manifest.files):
        return None
    cursor.execute(
        "SELECT run_id FROM nearfield.runs WHERE facts ->> 'matrix_sha256' = %s AND k = %s"
        " AND loaded_at IS NOT NULL AND NOT dropping ORDER BY run_id DESC LIMIT 1",
        (frozen["matrix"], source.k),
    )
    found = cursor.fetchone()
    if found is None:
        return None
    folder = run.folder / "delta"
    parts = (np.load(folder / name, allow_pickle=False) for name in CHANGED)
    changed = np.unique(np.concatenate([*parts, source.removed]))
    return LoadedBase(int(found[0]), changed.astype(np.int32))


def copy_changed(
    cursor: Any, run_id: int, source: Source, chunk: Chunk, base: LoadedBase, advance: Advance
) -> Copied:
    """Make and fill one chunk of the run's lists with its key: changed ones sent, others copied."""
    table, old = leaf("neighbours", run_id, chunk.number), leaf("neighbours", base.run_id)
    create_lists(cursor, run_id, source.k, chunk)
    low, high = np.searchsorted(base.changed, (chunk.first, chunk.last))
    changed = base.changed[low:high]
    sent = np.setdiff1d(changed, source.removed, assume_unique=True)
    copied = Copied()
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary, FREEZE)").format(table)
    copied.bytes = copy_in(cursor, copy, changed_blocks(run_id, source, sent, advance))
    cursor.execute('CREATE TEMPORARY TABLE changed ("row" int) ON COMMIT DROP')
    lines = ("\n".join(map(str, changed.tolist())) + "\n").encode() if len(changed) else b""
    copy_in(cursor, sql.SQL("COPY changed FROM STDIN"), iter([lines] if lines else []))
    cursor.execute("ANALYZE changed")
    cursor.execute(
        sql.SQL(
            'INSERT INTO {} SELECT %s, "row", neighbours, distances FROM {} AS old'
            ' WHERE "row" >= %s AND "row" < %s'
            ' AND NOT EXISTS (SELECT FROM changed WHERE changed."row" = old."row")'
        ).format(table, old),
        (run_id, chunk.first, chunk.last),
    )
    advance(cursor.rowcount)
    cursor.execute(sql.SQL('ALTER TABLE {} ADD PRIMARY KEY ("row")').format(table))
    cursor.execute(
        sql.SQL("SELECT min(distances[1]), max(distances[%s]) FROM {}").format(table), (source.k,)
    )
    copied.distance_min, copied.distance_max = cursor.fetchone()
    return copied


def changed_blocks(run_id: int, source: Source, rows: Int32s, advance: Advance) -> Iterator[bytes]:
    """The lists of some rows (ascending) as binary COPY."""
    size = max(1, BLOCK_BYTES // record_type(source.k).itemsize // 1024) * 1024
    encoder = ListEncoder(run_id, source.k, size)
    yield HEADER
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        start, stop = int(part[0]), int(part[-1]) + 1
        near = np.empty((len(part), source.k), np.int32)
        far = np.empty(near.shape, np.float32)
        # HDF5 is slow at picking rows; whole stretches, as long as a block, are read instead
        for begin in range(start, stop, size):
            low, high = np.searchsorted(part, (begin, begin + size))
            if low < high:
                inside = part[low:high] - begin
                end = min(stop, begin + size)
                neighbours, distances = source.block(begin, end)
                near[low:high], far[low:high] = neighbours[inside], distances[inside]
        check_lists(part, near, far, source.n)
        yield encoder.encode(part, near, far)
        advance(len(part))
    yield TRAILER
