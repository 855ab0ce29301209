"""Do neighbours share labels more often than by chance? The check that a person believes.

Owns the choice of label columns and the counting. Refuses a verdict: it only reports.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

FIRST = 10
"""Neighbours of each recording that are looked at."""
ID_COLUMN = "recording_id"


class LabelShares:
    """Counts equal labels between recordings and their first neighbours, block by block.

    Columns of strings, integers or truth values count as labels when they have at least two
    values and some value comes more than once. A missing or empty label is left out on both
    sides, and so are rows that are `removed`, bool [n]. Memory: 4 n bytes per label.
    """

    def __init__(self, recordings: Path, removed: NDArray[np.bool_]) -> None:
        self.codes: dict[str, NDArray[np.int32]] = {}
        self.same: dict[str, int] = {}
        self.pairs: dict[str, int] = {}
        schema = pq.read_schema(recordings)
        for field in schema:
            if field.name == ID_COLUMN or not _is_label(field.type):
                continue
            codes = _codes(pq.read_table(recordings, columns=[field.name])[field.name])
            codes[removed] = -1
            counts = np.bincount(codes[codes >= 0])
            if len(counts) >= 2 and counts.max() >= 2:
                self.codes[field.name] = codes
                self.same[field.name] = self.pairs[field.name] = 0

    def count(self, start: int, neighbours: NDArray[np.int32]) -> None:
        """Count the lists [m, k] (all in range) of the rows from `start` on."""
        first = neighbours[:, :FIRST]
        for name, codes in self.codes.items():
            own, others = codes[start : start + len(first), None], codes[first]
            labelled = (own >= 0) & (others >= 0)
            self.pairs[name] += int(labelled.sum())
            self.same[name] += int((labelled & (own == others)).sum())

    def result(self) -> dict[str, Mapping[str, Any]]:
        """For each label: `share` of neighbours with the same one, that share by `chance`, the
        number of distinct `values`."""
        return {
            name: {
                "share": self.same[name] / max(1, self.pairs[name]),
                "chance": _chance(codes),
                "values": int(codes.max()) + 1,
            }
            for name, codes in self.codes.items()
        }


def _is_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_label(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
    )


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """A number 0, 1, ... per distinct value, -1 where there is none."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        # neither a chunk nor the distinct values need be below 2 GiB then
        column = column.cast(pa.large_string())
    # all chunks get one dictionary
    encoded = column.dictionary_encode().chunks
    codes = np.concatenate(
        [pc.fill_null(it.indices, -1).to_numpy(zero_copy_only=False) for it in encoded]
    ).astype(np.int32)
    if pa.types.is_large_string(column.type):
        empty = pc.index(encoded[0].dictionary, "").as_py()
        if empty >= 0:
            codes[codes == empty] = -1
            codes[codes > empty] -= 1
    return codes


def _chance(codes: NDArray[np.int32]) -> float:
    """Chance that two different labelled recordings have the same label."""
    counts = np.bincount(codes[codes >= 0]).astype(np.float64)
    m = counts.sum()
    return float((counts * (counts - 1)).sum() / (m * (m - 1)))
