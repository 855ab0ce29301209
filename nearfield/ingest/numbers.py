"""Arrow columns as float64: what is a number, what is missing, what is neither.

Owns the spelling of missing values and of numbers in text. Refuses to know about files and roles.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.ingest.columns import Float64s

MISSING = ("", "na", "n/a", "#n/a", "null", "none", "\\n")
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i:[+-]?(nan(\(\w*\))?|inf|infinity))$"
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Numbers:
    """`values` float64 [m, max(1, width)]; `missing`, `wrong` bool [m]: where there is no number.

    `values` are NaN where either holds.
    """

    values: Float64s
    missing: Mask
    wrong: Mask


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of that type holds text, dictionary-encoded or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of that type holds one number per row."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def is_list_of_numbers(kind: pa.DataType) -> bool:
    """Whether a column of that type holds a list of numbers per row: an embedding."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and is_number(kind.value_type)


def looks_numeric(column: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers: by its type, or as text where most values are some."""
    if not is_text(column.type):
        return is_number(column.type) or is_list_of_numbers(column.type)
    numbers = numbers_of(column, 0)
    present = len(column) - int(numbers.missing.sum())
    return present > 0 and int(numbers.wrong.sum()) * 2 < present


def numbers_of(column: pa.ChunkedArray, width: int) -> Numbers:
    """The column as float64; a list column must have `width` numbers in every row."""
    array = column.combine_chunks()
    if width:
        return _from_lists(array, width)
    return _from_text(array.cast(pa.string())) if is_text(array.type) else _from_typed(array)


def text_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text, empty text as null."""
    texts = column.cast(pa.string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _from_typed(array: pa.Array) -> Numbers:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = _flat(array.cast(pa.float64(), safe=False))
    return Numbers(values[:, None], _mask(array.is_null()), np.zeros(len(array), np.bool_))


def _from_text(texts: pa.Array) -> Numbers:
    try:
        return _from_typed(texts.cast(pa.float64()))
    except pa.ArrowInvalid:
        return _from_mixed_text(pc.utf8_trim_whitespace(texts))


def _from_mixed_text(texts: pa.Array) -> Numbers:
    missing = _mask(texts.is_null()) | _mask(pc.is_in(pc.utf8_lower(texts), pa.array(MISSING)))
    numeric = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
    values = pc.if_else(numeric, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    return Numbers(_flat(values)[:, None], missing, ~missing & ~_mask(numeric))


def _from_lists(array: pa.Array, width: int) -> Numbers:
    null = _mask(array.is_null())
    wrong = ~null & (_flat(pc.list_value_length(array)) != width)
    usable = ~null & ~wrong
    flat = pc.list_flatten(array.filter(pa.array(usable)))
    values = np.full((len(array), width), np.nan)
    values[usable] = _flat(flat.cast(pa.float64(), safe=False)).reshape(-1, width)
    # a null inside a list is as missing as a whole one
    missing = null.copy()
    missing[usable] = _mask(flat.is_null()).reshape(-1, width).any(axis=1)
    return Numbers(values, missing, wrong)


def _flat(array: pa.Array) -> Float64s:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _mask(array: pa.Array) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)
