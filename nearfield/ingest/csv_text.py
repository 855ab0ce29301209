"""Tables as text: .csv, .tsv, .txt with any delimiter, compressed or not.

Owns the look of the file (delimiter, header) and its records as Arrow text columns. Every value
stays the text that was written; what is a number is decided by `nearfield.ingest.tables`.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.compressed import opened
from nearfield.ingest.rejects import Reject, RejectLog

HEAD_BYTES = 256 << 10
BLOCK_BYTES = 4 << 20
DELIMITERS = ",\t;|"
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
SWALLOWED_LINES = 100
MALFORMED = "wrong number of columns"


@dataclass(frozen=True)
class TextTable:
    """How one text table is laid out. `skip`: lines before the first record."""

    path: Path
    names: tuple[str, ...]
    delimiter: str
    skip: int

    def place(self, record: int) -> str:
        """The line of a record (from 0), if no blank line or multi-line field precedes it."""
        return f"line {record + self.skip + 1}"

    def chunks(
        self, columns: Sequence[str], rejects: RejectLog
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Record numbers (from 0) and the asked text columns, a few megabytes at a time.

        Records with the wrong number of columns go to `rejects`. Raises `InputRejected` for what
        isn't UTF-8 text or has a quote that is never closed. One pass, memory of one block.
        """
        malformed = _Malformed(self, rejects)
        wanted = list(dict.fromkeys((*columns, self.names[-1])))
        seen, last = 0, None
        with opened(self.path) as stream, _csv_errors(self.path):
            for batch in self._reader(stream, wanted, malformed):
                numbers = malformed.numbers_of_next(seen, len(batch))
                seen = int(numbers[-1]) + 1 if len(numbers) else seen
                last = batch.column(len(wanted) - 1)[-1].as_py() if len(batch) else last
                yield numbers, pa.Table.from_batches([batch]).select(list(columns))
                malformed.check_quotes(last=None)
        malformed.check_quotes(last)

    def sample(self) -> pa.Table:
        """The well-formed records among the first few megabytes, all columns, as text."""
        # a reader left in the middle would go on in Arrow's threads, so it gets these bytes alone
        with opened(self.path) as stream, _csv_errors(self.path):
            head = stream.read_buffer(BLOCK_BYTES)
            if len(head) == BLOCK_BYTES:
                # a line that is cut off may end inside of a character
                head = head.slice(0, head.to_pybytes().rfind(b"\n") + 1 or BLOCK_BYTES)
            reader = self._reader(
                pa.BufferReader(head), list(self.names), _Malformed(self, RejectLog())
            )
            return pa.Table.from_batches(reader, pa.schema(dict.fromkeys(self.names, pa.string())))

    def _reader(self, stream: Any, wanted: list[str], malformed: "_Malformed") -> Any:
        try:
            return pc.open_csv(
                stream,
                # one thread: only then does the handler learn the record's number
                read_options=pc.ReadOptions(
                    use_threads=False,
                    block_size=BLOCK_BYTES,
                    skip_rows=self.skip,
                    column_names=self.names,
                ),
                parse_options=pc.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=malformed,
                ),
                convert_options=pc.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return iter(())
            raise


def text_table(path: Path, delimiter: str | None, header_rows: int | None) -> TextTable:
    """Find out how the text table at `path` is laid out, where it isn't said.

    The delimiter is the one out of comma, tab, semicolon and bar that splits the first line and
    most of the next 99 into the same number of fields, the more the better; else a space. The
    first line is a header unless all of it are numbers or one field is a UUID; without a header,
    columns are named column_1, column_2, ...
    Raises `InputRejected` for an empty file and for names that repeat.
    """
    lines = _head(path)
    if not lines:
        raise InputRejected(f"expected a table in {path}; the file is empty")
    chosen = _one_character(delimiter) if delimiter else _sniffed(lines)
    rows, ends = _parsed(lines, chosen)
    count = header_rows if header_rows is not None else int(not _looks_like_data(rows[0]))
    if not 0 <= count <= len(rows):
        raise UsageError(f"expected at most {len(rows)} header rows in {path}; got {count}")
    names = _names(rows[:count], width=len(rows[0]))
    refuse_repeated(names, path)
    return TextTable(path, names, chosen, ends[count - 1] if count else 0)


class _Malformed:
    """Takes the records with a wrong number of columns and keeps the numbering of the others."""

    def __init__(self, table: TextTable, rejects: RejectLog) -> None:
        self.table, self.rejects = table, rejects
        self.numbers: list[int] = []
        self.swallowed = ""

    def __call__(self, row: Any) -> str:
        number = row.number - 1 - self.table.skip
        self.numbers.append(number)
        place = self.table.place(number)
        detail = f"{row.actual_columns} where {row.expected_columns} are expected"
        self.rejects.add(Reject(str(self.table.path), place, MALFORMED, detail))
        if row.text.count("\n") > SWALLOWED_LINES:
            self.swallowed = place
        return "skip"

    def numbers_of_next(self, start: int, count: int) -> NDArray[np.int64]:
        """Numbers of the next `count` well-formed records, the first of them >= `start`."""
        between = [number for number in self.numbers if number >= start]
        candidates = np.arange(start, start + count + len(between))
        return np.setdiff1d(candidates, between, assume_unique=True)[:count]

    def check_quotes(self, last: str | None) -> None:
        """Raise `InputRejected` if an open quote swallowed the lines after it."""
        place = "its last record" if last is not None and last.endswith("\n") else self.swallowed
        if place:
            raise InputRejected(
                f"a quote that opens in {self.table.path} at {place} is never closed and swallows"
                " the lines after it. Close it, or double it if it is part of the text"
            )


class _csv_errors:  # noqa: N801
    """Turn Arrow's parse errors inside the block into `InputRejected` naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowInvalid):
            hint = "Expected UTF-8 text" if "UTF8" in str(error) else "Expected a table as text"
            raise InputRejected(
                f"{self.path} can't be read as a table: {error}. {hint};"
                " look there for a stray quote, another encoding (iconv -t utf-8) or binary data"
            ) from error


def _head(path: Path) -> list[str]:
    with opened(path) as stream:
        content = bytes(stream.read(HEAD_BYTES))
    lines = content.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    whole = lines if len(content) < HEAD_BYTES else lines[:-1]
    if content and not whole:
        raise InputRejected(
            f"expected a table as text in {path}; its first line has more than {HEAD_BYTES:,} bytes"
        )
    return whole if any(line.strip() for line in whole) else []


def _parsed(lines: list[str], delimiter: str) -> tuple[list[list[str]], list[int]]:
    """Records of the head, blank ones left out, and the line after which each ends."""
    reader = csv.reader(lines, delimiter=delimiter)
    records = [(record, reader.line_num) for record in reader if record]
    return [record for record, _ in records], [end for _, end in records]


def _sniffed(lines: list[str]) -> str:
    def width(delimiter: str) -> int:
        rows, _ = _parsed(lines[:100], delimiter)
        widths = [len(row) for row in rows]
        return widths[0] if widths.count(widths[0]) > len(widths) / 2 else 1

    best = max(DELIMITERS, key=width)
    return best if width(best) > 1 else " "


def _one_character(delimiter: str) -> str:
    character = NAMED_DELIMITERS.get(delimiter.lower(), delimiter)
    if len(character) != 1:
        raise UsageError(
            f"expected one character, tab, space or comma as delimiter; got {delimiter!r}"
        )
    return character


def _looks_like_data(row: list[str]) -> bool:
    return all(_is_number(cell) for cell in row) or any(_is_uuid(cell) for cell in row)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_uuid(cell: str) -> bool:
    try:
        return len(cell) == 36 and bool(UUID(cell))
    except ValueError:
        return False


def _names(header: list[list[str]], *, width: int) -> tuple[str, ...]:
    """One name per column: header rows joined with underscores; column_7 where all are empty."""
    parts = [
        [row[column].strip() for row in header if column < len(row)] for column in range(width)
    ]
    return tuple(
        "_".join(part for part in column if part) or f"column_{place}"
        for place, column in enumerate(parts, start=1)
    )


def refuse_repeated(names: Sequence[str], path: Path) -> None:
    """Raise `InputRejected` when two columns have one name."""
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputRejected(
            f"the header of {path} names {repeated!r} {names.count(repeated)} times. If the names"
            " take several lines of text, say how many (--header-rows), else rename the columns"
        )
