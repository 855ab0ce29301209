"""The matrix file: neighbours, distances and recording ids of a whole run in one HDF5 file.

Owns its format (docs/formats.md) and the one writer that makes it. A hole, a row that comes twice
or a file that doesn't read back is an error, and then no file appears. Refuses to compute anything.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from nearfield.ahead import ahead
from nearfield.errors import DamagedArtefact
from nearfield.files import atomic_path, fsync_path, synced_along
from nearfield.hdf5 import CHUNK_ROWS, new_dataset, new_file, stored_bytes
from nearfield.id_stream import IdStream
from nearfield.manifest import Manifest, file_entry, library_versions, write_manifest
from nearfield.neighbours import EMPTY
from nearfield.run import MATRIX_KIND, Run, RunConfig
from nearfield.space import Float32s, Int32s

FORMAT_VERSION = 1
ID_OVERHEAD_BYTES = 64
"""Per recording: the reference to a string and its place in HDF5's heap, generously."""
ID_ROWS = 65_536
CHECKED_ROWS = 8 * CHUNK_ROWS

Block = tuple[int, Int32s, Float32s]


def write_matrix(
    run: Run,
    blocks: Iterable[Block],
    ids: IdStream,
    *,
    attributes: Mapping[str, Any],
    removed: Int32s | None = None,
) -> Manifest:
    """Write `RUN/matrix.h5`, read it back, and write its manifest `RUN/matrix.json` last.

    blocks: (first row, neighbours int32 [m, k], distances float32 [m, k]), ascending and without
    gaps; two are held at a time, one of which is made while the other is written. ids: of n
    recordings in row order; a batch is held. `attributes` (strings and numbers) go into the file
    and into the manifest's facts. `removed`: rows without a recording, ascending; their lists must
    be -1 and infinity throughout, all others full.

    Raises `DamagedArtefact` naming the rows that are missing, repeated or unfilled, and `DiskFull`.
    Cost: one write and two reads of 8 n k bytes.
    """
    config = run.config
    target = run.matrix_at
    manifest_path = target.with_suffix(".json")
    manifest_path.unlink(missing_ok=True)
    gone = np.empty(0, np.int32) if removed is None else removed
    with atomic_path(target) as temporary:
        with new_file(temporary, _room(config, ids) + stored_bytes(gone.shape, 4)) as file:
            with synced_along(temporary) as wrote:
                _write_lists(file, ahead(_checked(blocks, config, gone)), config, wrote)
            _write_ids(file, ids, config)
            if len(gone):
                new_dataset(file, "removed", gone.shape, "<i4", -1)[:] = gone
            file.attrs.update(_attributes(config, attributes))
        # the disk, the checksum and the check keep each other waiting least when they run at once
        with ThreadPoolExecutor(2) as pool:
            synced = pool.submit(fsync_path, temporary)
            summed = pool.submit(file_entry, temporary)
            _check_written(temporary, config, gone)
            synced.result()
    return write_manifest(
        manifest_path,
        kind=MATRIX_KIND,
        fingerprint=config.fingerprint,
        format_version=FORMAT_VERSION,
        files={target.name: summed.result()},
        facts={"n": config.n, "k": config.columns, "space": config.space, **attributes},
    )


def _room(config: RunConfig, ids: IdStream) -> int:
    return (
        2 * stored_bytes((config.n, config.columns), 4) + ids.nbytes + config.n * ID_OVERHEAD_BYTES
    )


def _checked(blocks: Iterable[Block], config: RunConfig, removed: Int32s) -> Iterator[Block]:
    """The blocks as they come, provided that together they are every row exactly once, full."""
    due = 0
    for first, neighbours, distances in blocks:
        if first != due:
            fault = "missing" if first > due else "there twice"
            rows = f"{min(first, due):,} to {max(first, due) - 1:,}"
            raise DamagedArtefact(f"rows {rows} are {fault} among the parts of the matrix")
        expected = (len(neighbours), config.columns)
        if neighbours.shape != expected or distances.shape != expected:
            raise DamagedArtefact(
                f"expected lists of {config.columns} from row {first:,} on, "
                f"got neighbours {neighbours.shape} and distances {distances.shape}"
            )
        _check_filled(first, neighbours, config.n, removed)
        due = first + len(neighbours)
        if due > config.n:
            raise DamagedArtefact(f"expected {config.n:,} rows of the matrix, got {due:,}")
        yield first, neighbours, distances
    if due < config.n:
        raise DamagedArtefact(f"rows {due:,} to {config.n - 1:,} of the matrix are missing")


def _check_filled(first: int, neighbours: Int32s, n: int, removed: Int32s) -> None:
    low, high = np.searchsorted(removed, (first, first + len(neighbours)))
    # one pass where all is well, as it nearly always is: negative numbers are large without a sign
    if low == high and int(neighbours.view(np.uint32).max(initial=0)) < n:
        return
    faulty = np.asarray(((neighbours < 0) | (neighbours >= n)).any(axis=1))
    inside = removed[low:high] - first
    faulty[inside] = (neighbours[inside] != EMPTY).any(axis=1)
    holed = np.flatnonzero(faulty)
    if len(holed):
        named = ", ".join(f"{first + row:,}" for row in holed[:5])
        more = ", ..." if len(holed) > 5 else ""
        raise DamagedArtefact(
            f"{len(holed):,} rows of the matrix have places without a neighbour in 0..{n - 1:,}"
            f"{', or are removed and have neighbours' if len(removed) else ''}: "
            f"{named}{more}"
        )


def _write_lists(
    file: h5py.File, blocks: Iterator[Block], config: RunConfig, wrote: Callable[[int], None]
) -> None:
    shape = (config.n, config.columns)
    neighbours = new_dataset(file, "neighbours", shape, "<i4", -1)
    distances = new_dataset(file, "distances", shape, "<f4", np.inf)
    for first, block_neighbours, block_distances in blocks:
        last = first + len(block_neighbours)
        neighbours[first:last] = block_neighbours
        distances[first:last] = block_distances
        wrote(block_neighbours.nbytes + block_distances.nbytes)


def _write_ids(file: h5py.File, ids: IdStream, config: RunConfig) -> None:
    chunks = (min(config.n, ID_ROWS),)
    dataset = file.create_dataset(
        "recording_ids",
        (config.n,),
        "<i8" if ids.numbers else h5py.string_dtype(),
        chunks=chunks,
        fletcher32=ids.numbers,  # HDF5 keeps strings apart from the chunks that the filter sees
    )
    first = 0
    for batch in ids.batches() if ids.n == config.n else ():
        # as bytes, which h5py hands on without encoding them one by one
        values = batch if ids.numbers else batch.cast(pa.large_binary())
        dataset[first : first + len(values)] = values.to_numpy(zero_copy_only=False)
        first += len(values)
    if first != config.n:
        raise DamagedArtefact(f"expected {config.n:,} recording ids, got {first or ids.n:,}")


def _attributes(config: RunConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "n": config.n,
        "k": config.columns,
        "space": config.space,
        "run_fingerprint": config.fingerprint,
        "vectors_fingerprint": config.vectors_fingerprint,
        "recall_target": config.recall,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": json.dumps(library_versions()),
        **given,
    }


def _check_written(path: Path, config: RunConfig, removed: Int32s) -> None:
    """Read the closed file once more: shapes, every chunk there, every place filled."""
    shape = (config.n, config.columns)
    with h5py.File(path, "r") as file:
        for name in ("neighbours", "distances"):
            dataset = file[name]
            expected = -(-config.n // dataset.chunks[0])
            if dataset.shape != shape or dataset.id.get_num_chunks() != expected:
                raise DamagedArtefact(f"{name} in {path} isn't whole: check the disk, run again")
        # the same memory for every block: new pages cost as much as what is read into them
        neighbours = np.empty((min(config.n, CHECKED_ROWS), config.columns), np.int32)
        distances = np.empty(neighbours.shape, np.float32)
        for first in range(0, config.n, CHECKED_ROWS):
            rows = slice(first, min(config.n, first + CHECKED_ROWS))
            count = rows.stop - first
            file["neighbours"].read_direct(neighbours, rows, np.s_[:count])
            file["distances"].read_direct(distances, rows, np.s_[:count])
            _check_filled(first, neighbours[:count], config.n, removed)
            _check_finite(path, first, distances[:count], removed)


def _check_finite(path: Path, first: int, distances: Float32s, removed: Int32s) -> None:
    found = np.isfinite(distances)
    if found.all():
        return
    finite = np.asarray(found.all(axis=1))
    low, high = np.searchsorted(removed, (first, first + len(distances)))
    finite[removed[low:high] - first] = True
    if not finite.all():
        row = first + int(np.argmin(finite))
        raise DamagedArtefact(f"{path} has distances that aren't numbers (row {row:,})")
