"""Row groups that were encoded apart make one file, which other readers find sound."""

import io

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dumps.dump.row_groups import joined_file


def part_of(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return memoryview(sink.getvalue())


def tables(count, rows=50):
    for number in range(count):
        yield pa.table(
            {
                "row": pa.array(range(number * rows, (number + 1) * rows), pa.int32()),
                "name": [f"n {number} {i % 7}" for i in range(rows)],
                "maybe": [None if i % 3 else i / 7 for i in range(rows)],
                "list": [[number, i] * (i % 4) for i in range(rows)],
                "flag": [i % 2 == 0 for i in range(rows)],
            }
        )


@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 300])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "use_dictionary": ["name"], "write_page_checksum": True},
        {"row_group_size": 20, "write_page_index": True, "data_page_version": "2.0"},
    ],
)
def test_the_parts_are_one_table_for_every_reader(tmp_path, count, options):
    path = tmp_path / "joined.parquet"
    with joined_file(path, next(tables(1)).schema) as append:
        for table in tables(count):
            append(part_of(table, **options))
    whole = pa.concat_tables(tables(count))
    file = pq.ParquetFile(path, page_checksum_verification="write_page_checksum" in options)
    assert file.metadata.num_rows == len(whole)
    assert file.metadata.num_row_groups == count * (3 if "row_group_size" in options else 1)
    assert file.read().equals(whole)
    assert duckdb.sql(f"SELECT * FROM '{path}'").fetchall() == [
        tuple(row.values()) for row in whole.to_pylist()
    ]
    last = duckdb.sql(f"SELECT name FROM '{path}' WHERE \"row\" = {len(whole) - 1}").fetchall()
    assert last == [(whole["name"][-1].as_py(),)]


def test_it_is_the_file_that_arrow_writes_in_one_go(tmp_path):
    together = tmp_path / "together.parquet"
    with pq.ParquetWriter(together, next(tables(1)).schema) as writer:
        for table in tables(3):
            writer.write_table(table)
    joined = tmp_path / "joined.parquet"
    with joined_file(joined, next(tables(1)).schema) as append:
        for table in tables(3):
            append(part_of(table))
    assert joined.read_bytes() == together.read_bytes()


def test_a_file_that_was_given_up_has_no_footer(tmp_path):
    path = tmp_path / "joined.parquet"
    with pytest.raises(OSError, match="lost"), joined_file(path, next(tables(1)).schema) as append:
        append(part_of(next(tables(1))))
        raise OSError("lost")
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(path)
