"""AcousticBrainz documents to vectors: from archives, folders and files, joined and folded.

Owns the order of the steps: scan in parallel, sort on disk, fold, fit, transform. What a document,
an archive or a metric is, the files beside this one know. Recordings come out in ascending order of
their UUID, whatever the order of archives and the number of workers.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearfield.errors import disk_errors
from nearfield.ingest.archives import is_archive_name
from nearfield.ingest.document_fold import Folded, Folder
from nearfield.ingest.document_pool import scan_all
from nearfield.ingest.document_records import LABELS
from nearfield.ingest.document_scan import Scanned, plan
from nearfield.ingest.document_spill import bucket_groups, read_span
from nearfield.ingest.metrics import (
    RAW_NUMBERS,
    Float64s,
    MetricSpace,
    fitted,
    metric_space,
    space_of,
    transformed,
)
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.rejects import RejectLog
from nearfield.space import Float32s
from nearfield.vectorset import ID_COLUMN, Geometry

GROUP_RECORDS = 20_000
BLOCK_ROWS = 65_536


def is_document_source(path: Path) -> bool:
    """Whether `path` is an archive or a document by its name, or a folder that holds one."""
    if path.is_dir():
        names = (name for _, _, names in os.walk(path) for name in names)
        return any(is_archive_name(name) or name.endswith(".json") for name in names)
    return is_archive_name(path.name) or path.name.endswith(".json")


def gather_documents(
    sources: Sequence[Path], options: IngestOptions, work: Path, rejects: RejectLog
) -> Gathered:
    """Vectors float32 [n, d] of all usable recordings in `sources`, ascending by recording id.

    `work` is scratch for about 0.5 kB per document, and per recording 512 bytes and the vector; the
    vectors are a memory map in it, to be copied before it is removed. What can't be used goes to
    `rejects`; with nothing usable n is 0. Raises `MissingFile`, `InputRejected` for an unreadable
    archive, `UsageError` for a wrong space, `DiskFull`. Memory: some megabytes per worker, and the
    recordings' ids and labels.
    """
    first_cepstral = options.documents.first_cepstral
    space = _asked_space(options)
    scanned = scan_all(plan(sources), work, options.workers)
    for part in scanned:
        rejects.merge(part.rejects)
    counts = sum((part.counts for part in scanned), Counter[str]())
    space = space or metric_space(_default_space(counts), first_cepstral)
    policy = options.documents.submissions or "lowest"
    folder = Folder(space.metrics, policy, rejects)
    recordings = _folded(scanned, folder, work)
    geometry, vectors = recordings.vectors(space, options.base, work)
    chosen = "asked for" if options.space or options.base else _because(counts)
    facts = {
        "space": space.name,
        "space_chosen": chosen,
        "submissions_policy": policy,
        **_counted(scanned, counts, recordings),
    }
    return Gathered(vectors, recordings.table(), geometry, facts)


class _Recordings:
    """Folded recordings: raw rows in a scratch file, ids and labels as Arrow chunks."""

    def __init__(self, work: Path) -> None:
        self.rows = work / "raw.f64"
        self.rows.touch()
        self.chunks: list[pa.Table] = []
        self.n = self.submissions = self.usable = 0

    def add(self, folded: Folded) -> None:
        """Take the recordings of the next buckets."""
        with disk_errors(self.rows), self.rows.open("ab") as stream:
            stream.writelines(folded.rows)
        labels = zip(*folded.labels, strict=True) if folded.labels else [()] * len(LABELS)
        columns = [pa.array(column, pa.string()) for column in (folded.ids, *labels)]
        self.chunks.append(pa.table(columns, names=[ID_COLUMN, *LABELS]))
        self.n += len(folded.ids)
        self.submissions += folded.submissions
        self.usable += folded.usable

    def table(self) -> pa.Table:
        """Ids and labels in row order; a label that no recording has is left out."""
        empty = pa.table({name: pa.array([], pa.string()) for name in (ID_COLUMN, *LABELS)})
        table = pa.concat_tables([empty, *self.chunks])
        return table.drop_columns(
            [name for name in LABELS if table[name].null_count == table.num_rows]
        )

    def vectors(
        self, space: MetricSpace, base: Geometry | None, work: Path
    ) -> tuple[Geometry, Float32s]:
        """The geometry, fitted or that of `base`, and the vectors, mapped from `work`."""
        if not self.n:
            return base or Geometry(blocks=space.blocks()), np.empty((0, space.d), np.float32)
        raw: Float64s = np.memmap(self.rows, np.float64, "r", shape=(self.n, RAW_NUMBERS))
        geometry = base or fitted(raw, space, BLOCK_ROWS)
        target = work / "vectors.f32"
        with disk_errors(target), target.open("wb") as stream:
            for start in range(0, self.n, BLOCK_ROWS):
                block = transformed(raw[start : start + BLOCK_ROWS], space, geometry.statistics)
                stream.write(block.data)
        return geometry, np.memmap(target, np.float32, "r", shape=(self.n, space.d))


def _counted(
    scanned: Sequence[Scanned], counts: Counter[str], recordings: _Recordings
) -> dict[str, object]:
    flaws = sum((part.flaws for part in scanned), Counter[str]())
    return {
        "documents": {level: counts[level] for level in ("low-level", "high-level")},
        "other_members_skipped": counts["skipped"],
        "submissions": recordings.submissions,
        "submissions_usable": recordings.usable,
        "submissions_folded": recordings.usable - recordings.n,
        "recordings": recordings.n,
        "flaws": dict(sorted(flaws.items())),
    }


def _folded(scanned: Sequence[Scanned], folder: Folder, work: Path) -> _Recordings:
    recordings = _Recordings(work)
    spans = [span for part in scanned for span in part.spans]
    for group in bucket_groups(spans, GROUP_RECORDS):
        recordings.add(
            folder.fold((span.source, record) for span in group for record in read_span(span))
        )
    return recordings


def _asked_space(options: IngestOptions) -> MetricSpace | None:
    first_cepstral = options.documents.first_cepstral
    if options.base is not None:
        return space_of(options.base, options.space, first_cepstral)
    return None if options.space is None else metric_space(options.space, first_cepstral)


def _default_space(counts: Counter[str]) -> str:
    if not counts["high-level"]:
        return "lowlevel"
    return "combined" if counts["low-level"] else "highlevel"


def _because(counts: Counter[str]) -> str:
    seen = " and ".join(level for level in ("low-level", "high-level") if counts[level]) or "no"
    return f"by default: {seen} documents were seen"
