"""Lists of one length, encoded without Arrow, are what other readers find."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dumps.dump.list_pages import ListEncoder
from dumps.dump.row_groups import joined_file
from dumps.dump.source import Lists
from dumps.dump.tables import IDENTITY, LISTS, _identity, _row_group

AWKWARD = np.array([0.0, -0.0, 1e-45, 3.4028235e38, 1 / 3, np.float32(16777217)], np.float32)


def lists(m, k, first):
    rng = np.random.default_rng(first)
    distances = rng.choice(AWKWARD, (m, k))
    neighbours = rng.integers(0, 2**31 - 1, (m, k), dtype=np.int32)
    rows = np.arange(first, first + m, dtype=np.int32)
    return Lists(rows, neighbours, distances, pa.array([f"é {row}" for row in rows]))


@pytest.mark.parametrize("k", [1, 2, 7, 8, 100])
@pytest.mark.parametrize("sizes", [(1,), (9, 3), (1000, 1000, 17)])
def test_every_reader_finds_every_bit(tmp_path, k, sizes):
    path = tmp_path / "lists.parquet"
    blocks = [lists(m, k, sum(sizes[:i])) for i, m in enumerate(sizes)]
    encoder = ListEncoder(max(sizes) * k, 1)
    with joined_file(path, pa.schema([*IDENTITY, *LISTS])) as append:
        for block in blocks:
            table = pa.table(_identity(block), schema=pa.schema(IDENTITY))
            columns = [
                encoder.column("neighbours", block.neighbours),
                encoder.column("distances", block.distances),
            ]
            append(_row_group(table), columns)
    neighbours = np.concatenate([block.neighbours for block in blocks])
    bits = np.concatenate([block.distances for block in blocks]).view(np.uint32)
    found = pq.read_table(path)
    assert found["recording_id"].to_pylist() == [f"é {row}" for row in range(sum(sizes))]
    ours = np.array(found["neighbours"].to_pylist()), found["distances"].to_pylist()
    theirs = duckdb.sql(f"SELECT neighbours, distances FROM '{path}'").fetchnumpy()
    for near, far in (ours, (np.stack(theirs["neighbours"]), np.stack(theirs["distances"]))):
        np.testing.assert_array_equal(near, neighbours)
        np.testing.assert_array_equal(np.array(far, np.float32).view(np.uint32), bits)
    middle = sum(sizes) // 2
    (one,) = duckdb.sql(f"SELECT neighbours FROM '{path}' WHERE \"row\" = {middle}").fetchall()
    assert one[0] == neighbours[middle].tolist()


def test_arrow_writes_the_same_facts_but_for_the_pages(tmp_path):
    """Encodings, types, paths and counts: a reader that takes Arrow's file takes ours."""
    block = lists(500, 6, 0)
    ours, theirs = tmp_path / "ours.parquet", tmp_path / "theirs.parquet"
    with joined_file(ours, pa.schema([*IDENTITY, *LISTS])) as append:
        table = pa.table(_identity(block), schema=pa.schema(IDENTITY))
        encoder = ListEncoder(block.neighbours.size, 1)
        columns = [encoder.column(n, getattr(block, n)) for n in ("neighbours", "distances")]
        append(_row_group(table), columns)
    pq.write_table(
        pq.read_table(ours), theirs, compression="zstd", compression_level=1, use_dictionary=False,
        column_encoding=dict.fromkeys(
            ("neighbours.list.element", "distances.list.element"), "BYTE_STREAM_SPLIT"
        ),
        write_statistics=["row"],
    )  # fmt: skip
    mine, arrows = pq.ParquetFile(ours), pq.ParquetFile(theirs)
    assert mine.schema.equals(arrows.schema)
    assert mine.schema_arrow.equals(arrows.schema_arrow)
    for place in (2, 3):
        one, other = (file.metadata.row_group(0).column(place) for file in (mine, arrows))
        for name in ("physical_type", "path_in_schema", "compression", "num_values"):
            assert getattr(one, name) == getattr(other, name), name
        assert set(one.encodings) == set(other.encodings)
    assert mine.metadata.row_group(0).total_byte_size == sum(
        mine.metadata.row_group(0).column(place).total_uncompressed_size for place in range(4)
    )
