"""Bytes that COPY takes: neighbour lists as fixed-size binary records, recordings as CSV.

Every list has k entries, so a row of the table is a record of constant size, and a block of rows
is one structured array whose constant parts are written once. Refuses to know a database.
"""

import struct
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from nearfield.space import Float32s, Int32s
from nearfield.vectorset import ID_COLUMN

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
INT4, FLOAT4 = 23, 700
"""Type ids of Postgres, the same in every server."""
ARRAY_HEADER_BYTES = 20


def record_type(k: int) -> np.dtype[np.void]:
    """One row of (run_id int4, row int4, neighbours int4[k], distances float4[k]), packed."""

    def array(element: str) -> np.dtype[np.void]:
        return np.dtype(
            [
                ("bytes", ">i4"),
                ("dimensions", ">i4"),
                ("has_null", ">i4"),
                ("element_type", ">i4"),
                ("length", ">i4"),
                ("lower_bound", ">i4"),
                ("elements", [("bytes", ">i4"), ("value", element)], (k,)),
            ]
        )

    number = np.dtype([("bytes", ">i4"), ("value", ">i4")])
    return np.dtype(
        [
            ("fields", ">i2"),
            ("run_id", number),
            ("row", number),
            ("neighbours", array(">i4")),
            ("distances", array(">f4")),
        ]
    )


class ListEncoder:
    """Encodes blocks of up to `rows` lists; holds one block of `rows` records."""

    def __init__(self, run_id: int, k: int, rows: int) -> None:
        self.records = np.empty(rows, record_type(k))
        self.records["fields"] = 4
        self.records["run_id"] = (4, run_id)
        self.records["row"]["bytes"] = 4
        for name, element_type in (("neighbours", INT4), ("distances", FLOAT4)):
            array = self.records[name]
            array["bytes"] = ARRAY_HEADER_BYTES + 8 * k
            array["dimensions"] = array["lower_bound"] = 1
            array["has_null"] = 0
            array["element_type"] = element_type
            array["length"] = k
            array["elements"]["bytes"] = 4

    def encode(self, first: int | Int32s, neighbours: Int32s, distances: Float32s) -> bytes:
        """Records of rows first, first + 1, ..., or of the rows int32 [m] that `first` lists.

        neighbours int32 [m, k], distances float32 [m, k]; m <= rows. Cost: one pass over the lists.
        """
        records = self.records[: len(neighbours)]
        records["row"]["value"] = (
            np.arange(first, first + len(neighbours)) if isinstance(first, int) else first
        )
        records["neighbours"]["elements"]["value"] = neighbours
        records["distances"]["elements"]["value"] = distances
        return records.tobytes()


def recordings_csv(
    run_id: int, batches: Iterable[pa.RecordBatch | pa.Table], removed: Int32s | None = None
) -> Iterator[tuple[int, bytes]]:
    """(rows, CSV of run_id, row, recording_id, labels) per batch; rows are numbered from 0.

    Rows that are `removed` (ascending) are left out; the others keep their numbers.

    Batches hold `recording_id` and label columns. A label without a value is left out of the JSON;
    a character 0, which Postgres can't store, becomes U+FFFD.
    """
    first = 0
    for batch in batches:
        m = batch.num_rows
        table = pa.table(
            {
                "run_id": pa.repeat(pa.scalar(run_id, pa.int32()), m),
                "row": pa.array(np.arange(first, first + m, dtype=np.int32)),
                "recording_id": batch.column(ID_COLUMN).cast(pa.string()),
                "labels": pa.array(_labels_json(batch.drop_columns([ID_COLUMN])), pa.string()),
            }
        )
        if removed is not None and len(removed):
            table = table.filter(pa.array(~np.isin(np.arange(first, first + m), removed)))
        sink = pa.BufferOutputStream()
        pc.write_csv(table, sink, pc.WriteOptions(include_header=False))
        yield table.num_rows, sink.getvalue().to_pybytes()
        first += m


def _labels_json(labels: pa.RecordBatch | pa.Table) -> list[str]:
    if not labels.num_columns:
        return ["{}"] * labels.num_rows
    encode = msgspec.json.Encoder().encode
    columns = [labels.column(name).to_pylist() for name in labels.column_names]
    return [
        encode(
            {
                name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
                for name, value in zip(labels.column_names, values, strict=True)
                if value is not None
            }
        ).decode()
        for values in zip(*columns, strict=True)
    ]
