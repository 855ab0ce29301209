"""The vector set: float32 [n, d] plus recording ids, labels, space and statistics, as a directory.

Owns the directory's format (docs/formats.md): `vectors.npy`, `recordings.parquet`, `space.json`,
`manifest.json`. Refuses to know where the numbers came from: that is ingest's business.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearfield.errors import DamagedArtefact, InputRejected, MissingFile
from nearfield.files import atomic_path, synced_along
from nearfield.id_stream import IdStream, stored_ids
from nearfield.locations import Location, local_path
from nearfield.manifest import (
    FileEntry,
    Manifest,
    file_entry,
    fingerprint,
    read_manifest,
    write_manifest,
)
from nearfield.objects import ObjectPath
from nearfield.space import Block, Float32s, Int32s, SpaceName, space_named

KIND = "vector set"
FORMAT_VERSION = 1
ID_COLUMN = "recording_id"
CACHED_BYTES = 4 << 20
"""A block that is checked for finite numbers and written: it stays in cache with as many zeros."""
FILES = ("vectors.npy", "recordings.parquet", "space.json")
REMOVED_FILE = "removed.npy"
"""Only in sets from which recordings were removed: their rows, int32 ascending."""


@dataclass(frozen=True)
class Geometry:
    """How the columns of the vectors are to be read.

    `statistics` are what the transform was fitted to (means, deviations, categories, ...), kept so
    that later recordings are transformed alike. JSON-representable throughout.
    """

    space: SpaceName = "l2"
    blocks: tuple[Block, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VectorSet:
    """An opened vector set. `vectors` is a read-only memory map: workers share its pages.

    path: its directory; of a set in an object store this machine's copy, and `url` says of what.
    """

    path: Path
    vectors: Float32s
    geometry: Geometry
    manifest: Manifest
    url: ObjectPath | None = None

    @property
    def fetched(self) -> bool:
        """Whether `path` is a copy that only this machine sees."""
        return self.url is not None

    @property
    def home(self) -> Location:
        """Where it lies for everybody: the directory's whole path, or the URL."""
        return self.url or self.path.resolve()

    @property
    def n(self) -> int:
        """Number of recordings."""
        return int(self.vectors.shape[0])

    @property
    def d(self) -> int:
        """Numbers per recording."""
        return int(self.vectors.shape[1])

    @property
    def fingerprint(self) -> str:
        """Identifies the content: vectors, ids, labels and geometry."""
        return self.manifest.fingerprint

    @cached_property
    def removed(self) -> Int32s:
        """Rows whose recording was removed, int32 ascending: they keep their numbers and ids, but
        have no neighbours and are nobody's. Empty in a set that was only ingested."""
        if REMOVED_FILE not in self.manifest.files:
            return np.empty(0, np.int32)
        return np.load(self.path / REMOVED_FILE, allow_pickle=False)

    @cached_property
    def recordings(self) -> pa.Table:
        """One row per recording in row order: `recording_id`, then the label columns.

        Raises `DamagedArtefact` if the file isn't the one that the vectors came with.
        """
        path = self.path / "recordings.parquet"
        # a buffer of Arrow's own: one of Python's, dropped by a late Arrow thread while the
        # interpreter ends, aborts the process
        with pa.OSFile(str(path)) as stream:
            content = stream.read_buffer()
        if hashlib.sha256(content).hexdigest() != self.manifest.files[path.name].sha256:
            raise _replaced(self.path)
        return pq.read_table(pa.BufferReader(content))

    @property
    def ids(self) -> pa.ChunkedArray:
        """Recording ids in row order: strings or int64."""
        return self.recordings[ID_COLUMN]

    @property
    def id_stream(self) -> IdStream:
        """The same ids from the disk, a batch at a time."""
        path = self.path / "recordings.parquet"
        return stored_ids(path, ID_COLUMN, sha256=self.manifest.files[path.name].sha256)

    @property
    def label_names(self) -> list[str]:
        """Names of the label columns."""
        names = pq.read_schema(self.path / "recordings.parquet").names
        return [name for name in names if name != ID_COLUMN]

    def row_of(self, recording_id: str) -> int | None:
        """Row of a recording id given as text, or None. Cost: one scan of the ids."""
        row = int(pc.index(self.ids.cast(pa.string()), recording_id).as_py())
        return None if row < 0 else row


def write_vector_set(
    path: Path,
    vectors: Float32s,
    recordings: pa.Table,
    geometry: Geometry,
    facts: Mapping[str, Any] | None = None,
    *,
    removed: Int32s | None = None,
) -> VectorSet:
    """Write a vector set to the directory `path` and open it.

    vectors: float32 [n, d], C order, finite (checked). recordings: n rows in the same order, with
    a unique, non-null `recording_id` (string or int64) and any label columns. `facts` go into the
    manifest (counts, sources, policies); `removed`: see `VectorSet.removed`. Raises
    `InputRejected`. Cost O(n d), one block at a time.
    """
    _check_shape(vectors)
    check_ids(recordings, expected=len(vectors))
    path.mkdir(parents=True, exist_ok=True)
    gone = np.empty(0, np.int32) if removed is None else removed
    files = (*FILES, REMOVED_FILE) if len(gone) else FILES
    with ExitStack() as stack:
        # a set that is there already stays whole until all of the new one is written
        new = {name: stack.enter_context(atomic_path(path / name)) for name in files}
        entries = {"vectors.npy": _write_array(new["vectors.npy"], vectors)}
        pq.write_table(recordings, new["recordings.parquet"], compression="zstd")
        new["space.json"].write_text(json.dumps(asdict(geometry), indent=2) + "\n")
        if len(gone):
            with new[REMOVED_FILE].open("wb") as stream:
                np.save(stream, gone)
        entries |= {name: file_entry(new[name]) for name in files if name not in entries}
        (path / "manifest.json").unlink(missing_ok=True)
    if not len(gone):
        (path / REMOVED_FILE).unlink(missing_ok=True)
    manifest = write_manifest(
        path / "manifest.json",
        kind=KIND,
        fingerprint=fingerprint(**{name: entries[name].sha256 for name in files}),
        format_version=FORMAT_VERSION,
        files={name: entries[name] for name in files},
        facts={"n": len(vectors), "d": int(vectors.shape[1]), "dtype": "float32", **(facts or {})},
    )
    return _opened(path, manifest)


def _write_array(path: Path, vectors: Float32s) -> FileEntry:
    """Write finite vectors as `.npy`, each block while it is in cache."""
    header, first = io.BytesIO(), 0
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": vectors.shape}
    )
    digest = hashlib.sha256(header.getbuffer())
    with path.open("wb") as stream, synced_along(path) as wrote:
        stream.write(header.getbuffer())
        for block in row_blocks(vectors, CACHED_BYTES):
            _check_rows(block, first)
            content = np.ascontiguousarray(block, dtype="<f4").data
            stream.write(content)
            digest.update(content)
            wrote(block.nbytes)
            first += len(block)
    return FileEntry(path.stat().st_size, digest.hexdigest())


def open_vector_set(path: Path, *, verify: bool = True) -> VectorSet:
    """Open the vector set at `path`; `verify` compares every checksum (one read of the files).

    One in an object store is opened by `nearfield.copies`. Raises `MissingFile` when there is none
    and `DamagedArtefact` when it doesn't match.
    """
    path = local_path(path)
    if not path.is_dir():
        raise MissingFile(
            f"expected a vector set directory at {path}; "
            f"there is {'a file' if path.exists() else 'nothing'}. "
            "Make one with: nearfield ingest SOURCE... --out VECTORS"
        )
    return _opened(path, read_manifest(path / "manifest.json", kind=KIND, verify=verify))


def opened_copy(path: Path, manifest: Manifest, url: ObjectPath) -> VectorSet:
    """The vector set `url` from a copy of it whose files were compared with the manifest."""
    return replace(_opened(path, manifest), url=url)


def check_finite(vectors: Float32s) -> None:
    """Raise `InputRejected` unless vectors are float32 [n >= 1, d >= 1] and finite throughout."""
    _check_shape(vectors)
    _check_rows(vectors, 0)


def _check_shape(vectors: Float32s) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise InputRejected(
            f"expected vectors float32 [n >= 1, d >= 1]; got {vectors.dtype} {vectors.shape}"
        )


def _check_rows(vectors: Float32s, first: int) -> None:
    """Raise `InputRejected` unless the vectors, rows from `first` on, are finite."""
    zeros = np.zeros(0, np.float32)
    for block in row_blocks(vectors, CACHED_BYTES):
        if len(zeros) < block.size:
            zeros = np.zeros(block.size, np.float32)
        # NaN and infinity times zero are NaN: one pass at the speed of memory
        with np.errstate(invalid="ignore"):
            finite = np.dot(block.reshape(-1), zeros[: block.size]) == 0
        if not finite:
            row = first + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise InputRejected(f"expected finite vectors; row {row} has a NaN or an infinity")
        first += len(block)


def check_ids(recordings: pa.Table, *, expected: int) -> None:
    """Raise `InputRejected` unless there are `expected` unique, non-null recording ids."""
    ids = recordings[ID_COLUMN]
    if len(ids) != expected:
        raise InputRejected(f"expected {expected:,} ids, one per vector; got {len(ids):,}")
    if ids.null_count:
        raise InputRejected(f"{ids.null_count:,} recordings have no id")
    ids = wide(ids)
    if pc.count_distinct(ids).as_py() != expected:
        counted = pc.value_counts(ids.combine_chunks())
        repeated = counted.filter(pc.greater(counted.field("counts"), 1))
        raise InputRejected(
            f"expected unique recording ids; {len(repeated):,} of them come more than once "
            f"(first: {repeated.field('values')[0].as_py()!r}). Remove the repeats"
        )


def wide(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, text with long offsets: Arrow tells apart, and picks from, more than 2 GiB of it
    then. No text is copied.
    """
    return column.cast(pa.large_string()) if pa.types.is_string(column.type) else column


def row_blocks(vectors: Float32s, block_bytes: int = 64 << 20) -> Iterable[Float32s]:
    """Consecutive blocks of rows of at most `block_bytes` (at least one row each)."""
    rows = max(1, block_bytes // max(1, vectors.shape[1] * vectors.itemsize))
    return (vectors[start : start + rows] for start in range(0, len(vectors), rows))


def read_geometry(path: Path) -> Geometry:
    """Space, blocks and statistics from a directory's `space.json`; no checksum is compared."""
    raw = json.loads((path / "space.json").read_bytes())
    return Geometry(
        space=space_named(raw["space"]),
        blocks=tuple(Block(**block) for block in raw["blocks"]),
        statistics=raw["statistics"],
    )


def _opened(path: Path, manifest: Manifest) -> VectorSet:
    geometry = read_geometry(path)
    vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
    if vectors.dtype != np.float32 or vectors.shape != (manifest.facts["n"], manifest.facts["d"]):
        raise InputRejected(f"{path}/vectors.npy is {vectors.dtype} {vectors.shape}, not as stated")
    # the manifest goes first and comes last when a set is replaced: unchanged, so is all between
    if read_manifest(path / "manifest.json", kind=KIND, verify=False) != manifest:
        raise _replaced(path)
    return VectorSet(path=path, vectors=vectors, geometry=geometry, manifest=manifest)


def _replaced(path: Path) -> DamagedArtefact:
    return DamagedArtefact(f"{path} was replaced while it was being read: open it again")
