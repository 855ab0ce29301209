"""The parallel half of document ingest: archives and files in, spilled records and rejects out.

Owns the division of sources into tasks and one task's work. A task is a pure function of its files
and shares nothing with the others, so the number of workers can't change the result. Refuses to
join or to judge.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nearfield.errors import InputRejected, MissingFile, disk_errors
from nearfield.ingest.archives import Archive, Limits, Member, is_archive_name
from nearfield.ingest.document_records import (
    HIGH,
    Record,
    Unusable,
    named_submission,
    read_document,
)
from nearfield.ingest.document_spill import Span, Spill
from nearfield.ingest.rejects import Reject, RejectLog

FILES_PER_TASK = 2000
TICK_EVERY = 256

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """One archive, or a number of single documents. `number` is its place in the order."""

    number: int
    paths: tuple[Path, ...]
    archive: bool

    @property
    def source(self) -> str:
        """The archive, or the folder of the first document: where a submission is said to lie."""
        return str(self.paths[0] if self.archive else self.paths[0].parent)


@dataclass
class Scanned:
    """What a task found. `counts`: documents per level, members skipped, flaws by reason."""

    spans: list[Span]
    rejects: RejectLog
    counts: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)


def plan(sources: Sequence[Path]) -> list[Task]:
    """Tasks in an order that doesn't depend on the order of `sources`; each file once.

    Raises `MissingFile` for a source that isn't there.
    """
    archives: dict[Path, Path] = {}
    files: dict[Path, Path] = {}
    for path in (path for source in sources for path in _found(source)):
        (archives if is_archive_name(path.name) else files).setdefault(path.resolve(), path)
    ordered = sorted(files.values(), key=_order)
    groups = [(path,) for path in sorted(archives.values(), key=_order)]
    tasks = [Task(number, group, archive=True) for number, group in enumerate(groups)]
    for start in range(0, len(ordered), FILES_PER_TASK):
        group = tuple(ordered[start : start + FILES_PER_TASK])
        tasks.append(Task(len(tasks), group, archive=False))
    return tasks


def scan(task: Task, work: Path, tick: Tick) -> Scanned:
    """Read a task's documents and spill their records into a file of its own under `work`.

    `tick` is called now and then with the bytes of the files that were read since the last call.
    Memory: one document, the decompressor's window and a few thousand records.
    """
    target = work / f"task-{task.number:06}.spill"
    with disk_errors(work), target.open("wb") as stream:
        spill = Spill(task.source, target, stream)
        scanned = Scanned(spill.spans, RejectLog())
        for source, member in _members(task, scanned, tick):
            spill.add(_records(source, member, scanned))
        spill.flush()
    return scanned


def _records(source: str, member: Member, scanned: Scanned) -> Sequence[Record]:
    try:
        if member.content is None:
            raise Unusable("too large", f"{member.size:,} bytes")
        records = read_document(member.name, member.content)
    except Unusable as unusable:
        scanned.rejects.add(Reject(source, member.name, *unusable.args))
        submission = named_submission(member.name)
        return [Record(*submission, broken=True)] if submission else []
    for record in records:
        scanned.counts["high-level" if record.level == HIGH else "low-level"] += 1
        scanned.flaws.update({reason for reason, _ in record.flaws.values()})
    return records


def _members(task: Task, scanned: Scanned, tick: Tick) -> Iterator[tuple[str, Member]]:
    for path in task.paths:
        if task.archive:
            yield from ((str(path), member) for member in _archived(path, scanned, tick))
        else:
            member = _file_member(path)
            tick(member.size)
            yield str(path.parent), member


def _archived(path: Path, scanned: Scanned, tick: Tick) -> Iterator[Member]:
    archive, told = Archive(path), 0
    for count, member in enumerate(archive, start=1):
        yield member
        if count % TICK_EVERY == 0:
            tick(archive.bytes_in - told)
            told = archive.bytes_in
    scanned.counts["skipped"] += archive.skipped
    if archive.truncated:
        detail = "the end is missing; what came before it was used"
        scanned.rejects.add(Reject(str(path), "", "archive truncated", detail))


def _file_member(path: Path) -> Member:
    limit = Limits().member_bytes
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise InputRejected(
            f"expected a readable document at {path}: {error.strerror}. "
            "Mend its permissions, or leave it out"
        ) from error
    size = len(content)
    return Member(path.name, size, content if size <= limit else None)


def _found(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    elif not source.is_dir():
        raise MissingFile(f"expected documents at {source}; there is nothing. Check the path")
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if (is_archive_name(name) or name.endswith(".json")) and path.is_file():
                yield path


def _order(path: Path) -> tuple[str, str]:
    return path.name, str(path)
