"""Recordings in, vector set out: the one entry point to the readers of each format.

Owns the order of things: choose the reader, gather, list what was rejected, decide whether enough
was accepted, write the vector set. Refuses to know any format.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nearfield.errors import InputRejected, UsageError, disk_errors
from nearfield.files import TEMPORARY_MARK, remove_temporaries
from nearfield.ingest.arrays import gather_arrays
from nearfield.ingest.documents import gather_documents
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.rejects import RejectLog
from nearfield.ingest.sources import Kind, one_kind
from nearfield.lock import locked
from nearfield.space import SpaceName
from nearfield.vectorset import FILES, VectorSet, open_vector_set, write_vector_set

REJECTS_FILE = "rejects.csv"
WORK = ".work"
OURS = {*FILES, "manifest.json", REJECTS_FILE, WORK, ".lock"}

READERS = {
    "documents": gather_documents,
    "array": gather_arrays,
}


@dataclass(frozen=True)
class IngestReport:
    """What one ingest made. `rejected`: counts by reason; each is listed in `rejects_file`.

    `facts`: what the reader and the extension count (rows or documents read, folded, added, ...).
    """

    path: Path
    n: int
    d: int
    space: SpaceName
    fingerprint: str
    rejected: dict[str, int]
    rejects_file: Path
    facts: dict[str, Any]


def ingest(
    sources: Sequence[Path],
    out: Path,
    options: IngestOptions = IngestOptions(),
    *,
    extend: Path | None = None,
) -> IngestReport:
    """Make the vector set `out` from `sources`: documents, tables, arrays or ann-benchmarks HDF5.

    extend: a vector set whose recordings come first, at the rows that they have there; its
    statistics are used for the new ones. A vector set that is in `out` already is replaced, and
    readers see the old or the new one, never a mixture. Raises `UsageError` (sources of several
    kinds, `out` holds other files), `MissingFile`, `InputRejected` (unreadable, or more than
    `options.max_rejected` turned away), `RunLocked`, `DiskFull`. Cost: O(n d) streamed; ids and
    labels stay in memory.
    """
    kind = one_kind(sources)
    _check_out(out, extend)
    old = None if extend is None else open_vector_set(extend)
    if old is not None:
        options = replace(options, base=old.geometry)
    with disk_errors(out), locked(out), _scratch(out) as work:
        rejects = RejectLog()
        gathered = _gathered(kind, sources, options, work, rejects, out / REJECTS_FILE)
        written = write_vector_set(
            out,
            gathered.vectors,
            gathered.recordings,
            gathered.geometry,
            facts={
                "sources": [source.name for source in sources],
                "rejected": dict(rejects.counts),
                **gathered.facts,
            },
        )
    return _report(written, rejects, gathered)


def _gathered(
    kind: Kind,
    sources: Sequence[Path],
    options: IngestOptions,
    work: Path,
    rejects: RejectLog,
    rejects_file: Path,
) -> Gathered:
    """What the reader accepts; the rejects file is written even when that isn't enough."""
    try:
        gathered = READERS[kind](sources, options, work, rejects)
        rejects.gate(len(gathered.vectors), options.max_rejected, rejects_file)
    except InputRejected:
        rejects.write(rejects_file)
        raise
    rejects.write(rejects_file)
    return gathered


def _report(written: VectorSet, rejects: RejectLog, gathered: Gathered) -> IngestReport:
    return IngestReport(
        path=written.path,
        n=written.n,
        d=written.d,
        space=written.geometry.space,
        fingerprint=written.fingerprint,
        rejected=dict(rejects.counts),
        rejects_file=written.path / REJECTS_FILE,
        facts=dict(gathered.facts),
    )


def _check_out(out: Path, extend: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"expected a directory for --out; {out} is a file. Choose another path")
    foreign = [
        entry.name
        for entry in (out.iterdir() if out.exists() else ())
        if entry.name not in OURS and TEMPORARY_MARK not in entry.name
    ]
    if foreign:
        raise UsageError(
            f"{out} isn't a vector set (it holds {sorted(foreign)[0]}): choose another directory"
        )
    if extend is not None and extend.resolve() == out.resolve():
        raise UsageError(
            f"expected --out other than the set being extended, got {out} for both: the old set"
            " stays as it is"
        )


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """An empty directory inside `out`, removed afterwards; also what a killed ingest left there."""
    work = out / WORK
    shutil.rmtree(work, ignore_errors=True)
    remove_temporaries(out)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work)
