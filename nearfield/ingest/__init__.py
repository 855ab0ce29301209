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
from nearfield.ingest.ann_benchmarks import gather_ann_benchmarks
from nearfield.ingest.arrays import gather_arrays
from nearfield.ingest.documents import gather_documents
from nearfield.ingest.extend import merged
from nearfield.ingest.labels import with_labels_from
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.rejects import RejectLog
from nearfield.ingest.sources import Kind, one_kind, refuse_foreign_options
from nearfield.ingest.tables import gather_tables
from nearfield.locations import Location
from nearfield.lock import locked
from nearfield.space import SpaceName
from nearfield.vectorset import FILES, VectorSet, open_vector_set, write_vector_set

REJECTS_FILE = "rejects.csv"
WORK = ".work"
OURS = {*FILES, "manifest.json", REJECTS_FILE, WORK, ".lock"}

READERS = {
    "documents": gather_documents,
    "table": gather_tables,
    "array": gather_arrays,
    "ann-benchmarks HDF5": gather_ann_benchmarks,
}


@dataclass(frozen=True)
class IngestReport:
    """What one ingest made. `rejected`: counts by reason; each is listed in `rejects_file`.

    `facts`: what the reader and the extension count (rows or documents read, folded, added, ...).
    """

    path: Location
    n: int
    d: int
    space: SpaceName
    fingerprint: str
    rejected: dict[str, int]
    rejects_file: Location
    facts: dict[str, Any]


def ingest(
    sources: Sequence[Path | str],
    out: Path | str,
    options: IngestOptions | None = None,
    *,
    extend: Path | str | None = None,
) -> IngestReport:
    """Make the vector set `out` from `sources`: documents, tables, arrays or ann-benchmarks HDF5.

    extend: a vector set whose recordings come first, at the rows that they have there; its
    statistics are used for the new ones. A vector set that is in `out` already is replaced, and
    readers see the old or the new one, never a mixture. Raises `UsageError` (sources of several
    kinds, `out` holds other files), `MissingFile`, `InputRejected` (unreadable, or more than
    `options.max_rejected` turned away), `RunLocked`, `DiskFull`. Cost: O(n d) streamed; ids and
    labels stay in memory.
    """
    plan = _plan(sources, Path(out), options or IngestOptions(), extend)
    rejects = RejectLog()
    with disk_errors(plan.out), locked(plan.out), _scratch(plan.out) as work:
        gathered = _gathered(plan, work, rejects)
        if plan.options.labels_from is not None:
            gathered = _labelled(gathered, plan.options.labels_from)
        if plan.old is not None:
            gathered = merged(plan.old, gathered, work)
        written = write_vector_set(
            plan.out,
            gathered.vectors,
            gathered.recordings,
            gathered.geometry,
            facts={
                "sources": [source.name for source in plan.sources],
                "rejected": dict(rejects.counts),
                **gathered.facts,
            },
        )
    return _report(written, rejects, gathered)


@dataclass(frozen=True)
class _Plan:
    """What is to be done, checked as far as paths and options alone allow."""

    kind: Kind
    sources: tuple[Path, ...]
    out: Path
    options: IngestOptions
    old: VectorSet | None

    @property
    def rejects_file(self) -> Path:
        return self.out / REJECTS_FILE


def _plan(
    sources: Sequence[Path | str], out: Path, options: IngestOptions, extend: Path | str | None
) -> _Plan:
    if isinstance(sources, str | Path):
        sources = [sources]
    paths = tuple(Path(source) for source in sources)
    kind = one_kind(paths)
    refuse_foreign_options(kind, options)
    check_out(out, extend)
    old = None if extend is None else open_vector_set(Path(extend))
    if old is not None:
        if len(old.removed):
            raise UsageError(
                f"{extend} has {len(old.removed):,} removed recordings, of which an extension knows"
                " nothing. Extend its run: nearfield update RUN --add SOURCE --out RUN2"
            )
        options = as_made(old, options)
    return _Plan(kind, paths, out, options, old)


def as_made(old: VectorSet, options: IngestOptions) -> IngestOptions:
    """The options with which recordings are read as those of `old` were. Raises `UsageError` where
    they contradict that.
    """
    policy, asked = old.manifest.facts.get("submissions_policy"), options.documents.submissions
    if policy is not None and asked not in (None, policy):
        raise UsageError(
            f"can't extend with --submissions {asked}: {old.path} was made with {policy}. Leave it "
            "out"
        )
    documents = replace(options.documents, submissions=policy or asked)
    return replace(options, base=old.geometry, documents=documents)


def _gathered(plan: _Plan, work: Path, rejects: RejectLog) -> Gathered:
    """What the reader accepts; the rejects file is written even when that isn't enough."""
    try:
        gathered = READERS[plan.kind](plan.sources, plan.options, work, rejects)
        rejects.gate(len(gathered.vectors), plan.options.max_rejected, plan.rejects_file)
    except InputRejected:
        rejects.write(plan.rejects_file)
        raise
    rejects.write(plan.rejects_file)
    return gathered


def _labelled(gathered: Gathered, labels_from: Path) -> Gathered:
    recordings, matched = with_labels_from(gathered.recordings, labels_from)
    facts = {**gathered.facts, "labels_matched": matched}
    return replace(gathered, recordings=recordings, facts=facts)


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


def check_out(out: Path, old: Path | str | None) -> None:
    """Raise `UsageError` unless a vector set may be written to `out`, made from the set `old`.

    What isn't one isn't written over, nor is `old`.
    """
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
    if old is not None and Path(old).resolve() == out.resolve():
        raise UsageError(
            f"expected --out other than the set that it is made from, got {out} for both: the old"
            " set stays as it is"
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
