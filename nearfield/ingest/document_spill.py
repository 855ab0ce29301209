"""Records on disk, by bucket: how ingest sorts more documents than fit in memory.

Owns the scratch files. A spill file is a sequence of spans; a span holds the records of one bucket
(the first byte of the UUID) in the order in which they came. All spans of a bucket together hold
whole recordings, and buckets in order are recordings in order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from nearfield.ingest.document_records import Record

BUCKETS = 256
RECORDS_IN_MEMORY = 8192

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


@dataclass(frozen=True)
class Span:
    """Where `records` records of one bucket lie, and which source they came from."""

    source: str
    path: Path
    start: int
    length: int
    bucket: int
    records: int


@dataclass
class Spill:
    """Takes records and writes them to `stream` whenever `RECORDS_IN_MEMORY` have come."""

    source: str
    path: Path
    stream: BinaryIO
    spans: list[Span] = field(default_factory=list)
    _waiting: list[Record] = field(default_factory=list)

    def add(self, records: Sequence[Record]) -> None:
        """Take records, in the order of the documents."""
        self._waiting += records
        if len(self._waiting) >= RECORDS_IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting: one span per bucket."""
        buckets: dict[int, list[Record]] = {}
        for record in self._waiting:
            buckets.setdefault(record.recording[0], []).append(record)
        self._waiting = []
        for bucket, records in sorted(buckets.items()):
            start = self.stream.tell()
            length = self.stream.write(_encode(records))
            self.spans.append(Span(self.source, self.path, start, length, bucket, len(records)))


def bucket_groups(spans: Sequence[Span], group_records: int) -> Iterator[list[Span]]:
    """Spans of consecutive buckets, together about `group_records` records or one bucket.

    Within a bucket spans keep their order.
    """
    group: list[Span] = []
    filled, bucket = 0, -1
    for span in sorted(spans, key=lambda span: span.bucket):
        if filled >= group_records and span.bucket != bucket:
            yield group
            group, filled = [], 0
        group.append(span)
        filled, bucket = filled + span.records, span.bucket
    if group:
        yield group


def read_span(span: Span) -> list[Record]:
    """The records of a span, in order."""
    with span.path.open("rb") as stream:
        stream.seek(span.start)
        return _decode(stream.read(span.length))
