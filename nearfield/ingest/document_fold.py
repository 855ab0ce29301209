"""Joins low- with high-level records and folds the submissions of a recording into one raw row.

Owns the policies: which documents are duplicates, which submission is usable for the space asked
for, what stands for a recording. Works on whole buckets, in memory, in the order of recordings.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np

from nearfield.ingest.document_records import HIGH, LABELS, UNNUMBERED, Flaw, Record
from nearfield.ingest.metrics import (
    CIRCLES,
    HIGH_NUMBERS,
    LOW_NUMBERS,
    RAW_NUMBERS,
    Float64s,
    Metric,
    circular_medoid,
)
from nearfield.ingest.rejects import Reject, RejectLog

NO_LOW = np.full(LOW_NUMBERS, np.nan).tobytes()
NO_HIGH = np.full(HIGH_NUMBERS, np.nan).tobytes()

Labels = tuple[str | None, ...]


@dataclass(slots=True)
class Submission:
    """What is known of one (recording, offset)."""

    source: str
    levels: list[Record | None] = field(default_factory=lambda: [None, None])
    broken: bool = False

    @property
    def raw(self) -> bytes:
        """The raw row's bytes, NaN where a level is absent."""
        low, high = self.levels
        return (low.numbers if low else NO_LOW) + (high.numbers if high else NO_HIGH)

    @property
    def labels(self) -> Labels:
        """Labels from the low-level document, else from the high-level one."""
        first, second = (record.labels if record else (None,) * len(LABELS)
                         for record in self.levels)  # fmt: skip
        return tuple(one or other for one, other in zip(first, second, strict=True))


Table = dict[tuple[bytes, int], Submission]


@dataclass
class Folded:
    """Recordings in ascending order: ids, raw rows float64 [m, 64], labels, and what was folded."""

    ids: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    submissions: int = 0
    usable: int = 0

    @property
    def raw(self) -> Float64s:
        """Raw rows float64 [m, 64]."""
        return np.frombuffer(b"".join(self.rows)).reshape(-1, RAW_NUMBERS)


@dataclass(frozen=True)
class Folder:
    """Folds buckets for the `metrics` asked for; unusable submissions go to `rejects`."""

    metrics: Sequence[Metric]
    policy: Literal["lowest", "median"]
    rejects: RejectLog

    def fold(self, records: Iterable[tuple[str, Record]]) -> Folded:
        """Fold all records (with their sources) of some buckets, in document order."""
        folded = Folded()
        table = self._joined(records)
        for recording, group in groupby(sorted(table), key=lambda key: key[0]):
            usable = [table[key] for key in group if self._is_usable(key, table[key], folded)]
            if usable:
                folded.ids.append(str(uuid.UUID(bytes=recording)))
                folded.labels.append(usable[0].labels)
                folded.rows.append(self._row(usable))
        return folded

    def _joined(self, records: Iterable[tuple[str, Record]]) -> Table:
        table: Table = {}
        unnumbered = []
        for source, record in records:
            if record.offset == UNNUMBERED:
                unnumbered.append((source, record))
            else:
                self._place(table, source, record)
        for source, record in _numbered(table, unnumbered):
            self._place(table, source, record)
        return table

    def _place(self, table: Table, source: str, record: Record) -> None:
        key = (record.recording, record.offset)
        submission = table.setdefault(key, Submission(source))
        if record.broken:
            submission.broken = True
        elif submission.levels[record.level] is None:
            submission.levels[record.level] = record
        else:
            level = "high-level" if record.level == HIGH else "low-level"
            self.rejects.add(Reject(source, _spelled(key), "duplicate document", level))

    def _is_usable(self, key: tuple[bytes, int], submission: Submission, folded: Folded) -> bool:
        if submission.levels == [None, None]:
            return False  # only a broken document, and that was rejected as such
        folded.submissions += 1
        flaw = _flaw(submission, self.metrics)
        if flaw is None:
            folded.usable += 1
        elif flaw[0]:
            self.rejects.add(Reject(submission.source, _spelled(key), *flaw))
        return flaw is None

    def _row(self, usable: Sequence[Submission]) -> bytes:
        if self.policy == "lowest" or len(usable) == 1:
            return usable[0].raw
        rows = np.stack([np.frombuffer(submission.raw) for submission in usable])
        row = np.median(rows, axis=0)
        # a median between two points of a circle needn't lie on it
        for column in range(CIRCLES.start, CIRCLES.stop):
            row[column] = circular_medoid(rows[:, column])
        return row.tobytes()


def _flaw(submission: Submission, metrics: Sequence[Metric]) -> Flaw | None:
    """What keeps a submission from being used; an empty reason: it was reported already."""
    low, high = submission.levels
    for metric in metrics:
        record = low if metric.level == "low-level" else high
        if record is None:
            return ("", "") if submission.broken else (f"no {metric.level} document", "")
        if metric.name in record.flaws:
            return record.flaws[metric.name]
    return None


def _numbered(
    table: Table, unnumbered: Sequence[tuple[str, Record]]
) -> Iterator[tuple[str, Record]]:
    """Give documents without an offset the next free ones, per level, in document order."""
    taken: defaultdict[bytes, int] = defaultdict(int)
    for recording, offset in table:
        taken[recording] = max(taken[recording], offset + 1)
    following: dict[tuple[bytes, int], int] = {}
    for source, record in unnumbered:
        key = (record.recording, record.level)
        record.offset = following.get(key, taken[record.recording])
        following[key] = record.offset + 1
        yield source, record


def _spelled(key: tuple[bytes, int]) -> str:
    return f"{uuid.UUID(bytes=key[0])}-{key[1]}"
