"""Which column of a table is what: id, numbers, categories, labels.

Owns the rules for what the user leaves open, decided on a sample (the first block of the file).
Refuses to read files and to change values.

    id          the named one; else the best-known name of `ID_NAMES`; else the first column if it
                holds integers without a repeat, or the first column of text without repeat or gap;
                else the row number
    numbers     the named ones; else all columns of numbers except ids, labels, categories and
                columns without a name
    labels      the named ones; else all columns of text (and dates, and truth values) but the id
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.ids import ID_NAMES, likely_id_column
from nearfield.ingest.numbers import is_list_of_numbers, is_text, looks_numeric, text_of
from nearfield.ingest.options import TableOptions
from nearfield.vectorset import ID_COLUMN

UNNAMED = re.compile(r"column_\d+")


@dataclass(frozen=True)
class Layout:
    """The columns by role. `numbers`: name and width, 0 for one number, w for a list of w."""

    id_column: str | None
    numbers: tuple[tuple[str, int], ...]
    categorical: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """Every column that must be read, once."""
        ids = [self.id_column] if self.id_column else []
        names = (*ids, *(name for name, _ in self.numbers), *self.categorical, *self.labels)
        return list(dict.fromkeys(names))

    @property
    def number_names(self) -> list[str]:
        """A name for every number of a raw row: `bpm`, `embedding[0]`, ..."""
        return [
            f"{name}[{place}]" if width else name
            for name, width in self.numbers
            for place in range(max(1, width))
        ]


def choose_layout(sample: pa.Table, options: TableOptions, where: str, *, ids: bool) -> Layout:
    """Give each column of `sample` its role. ids: they come from elsewhere, so no column is one.

    Raises `UsageError` for a named column that isn't there, `InputRejected` when a named column
    holds no numbers or when no numbers are left.
    """
    names = sample.column_names
    named = (*options.columns, *options.categorical, *options.labels)
    for name in named:
        require_column(name, names, where)
    id_column = (
        None
        if ids
        else chosen_id(
            sample, options.id_column, where, taken=(*options.columns, *options.categorical)
        )
    )
    numbers = options.columns or _numeric_names(sample, id_column, options)
    for name in options.columns:
        if not looks_numeric(sample[name]):
            raise InputRejected(
                f"expected numbers in column {name!r} of {where}; found {_example(sample[name])}."
                " Choose other --columns, or name it in --categorical or --labels"
            )
    if not numbers and not options.categorical:
        raise InputRejected(
            f"found no column of numbers in {where} besides the id; columns: {', '.join(names)}."
            " Is the delimiter right (--delimiter), or the decimal sign a comma?"
        )
    return Layout(
        id_column=id_column,
        numbers=tuple((name, _list_width(sample[name], f"{where} ({name})")) for name in numbers),
        categorical=options.categorical,
        labels=options.labels or label_names(sample, id_column, numbers),
    )


def chosen_id(
    sample: pa.Table, named: str | None, where: str, *, taken: Sequence[str]
) -> str | None:
    """The named column with the id, else by the rule above one that isn't `taken`."""
    if named is None:
        return found_id_column(sample, taken)
    require_column(named, sample.column_names, where)
    return named


def require_column(name: str, names: Sequence[str], where: str) -> None:
    """Raise `UsageError` unless `name` is one of `names`, which it lists."""
    if name not in names:
        raise UsageError(f"there is no column {name!r} in {where}; there are: {', '.join(names)}")


def found_id_column(sample: pa.Table, taken: Sequence[str] = ()) -> str | None:
    """The id column by the rule above, out of the columns that aren't `taken`."""
    free = [name for name in sample.column_names if name not in taken]
    return likely_id_column(free) or next(
        (name for name in free if _identifies(sample, name)), None
    )


def _identifies(sample: pa.Table, name: str) -> bool:
    column = sample[name]
    first = name == sample.column_names[0]
    if not (_plain_text(column) or (first and _whole(column))):
        return False
    texts = text_of(column)
    return not texts.null_count and pc.count_distinct(texts).as_py() == len(texts)


def _numeric_names(
    sample: pa.Table, id_column: str | None, options: TableOptions
) -> tuple[str, ...]:
    taken = {id_column, *options.categorical, *options.labels}
    unnamed = not all(UNNAMED.fullmatch(name) for name in sample.column_names)
    return tuple(
        name
        for name in sample.column_names
        if name not in taken
        and name.lower() not in ID_NAMES
        and not (unnamed and UNNAMED.fullmatch(name))
        and not pa.types.is_boolean(sample[name].type)
        and looks_numeric(sample[name])
    )


def label_names(sample: pa.Table, id_column: str | None, numbers: Sequence[str]) -> tuple[str, ...]:
    """The columns that become labels where none are asked for."""
    return tuple(
        name
        for name in sample.column_names
        if name not in (id_column, ID_COLUMN, *numbers) and _is_label(sample[name])
    )


def _is_label(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if is_text(kind):
        return not looks_numeric(column)
    return pa.types.is_boolean(kind) or pa.types.is_temporal(kind)


def _plain_text(column: pa.ChunkedArray) -> bool:
    return is_text(column.type) and not looks_numeric(column)


def _whole(column: pa.ChunkedArray) -> bool:
    if pa.types.is_integer(column.type):
        return True
    whole = is_text(column.type) and pc.all(pc.match_substring_regex(column, r"^\d+$")).as_py()
    return bool(whole)


def _list_width(column: pa.ChunkedArray, where: str) -> int:
    """Numbers in each list of the column, 0 for a column of single numbers."""
    if not is_list_of_numbers(column.type):
        return 0
    width = pc.max(pc.list_value_length(column)).as_py()
    if not width:
        raise InputRejected(f"expected numbers in the lists of {where}; the first ones are empty")
    return int(width)


def _example(column: pa.ChunkedArray) -> str:
    for value in column.to_pylist():
        if value not in (None, ""):
            return f"{column.type} such as {str(value)[:60]!r}"
    return "no value at all"
