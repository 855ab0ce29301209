"""The table of outcomes: what is written comes back, in both files."""

import csv
from dataclasses import asdict, replace

import pyarrow.parquet as pq
import pytest

from benchmark.results.outcome import COLUMNS, Outcome, Status
from benchmark.results.table import CSV, PARQUET, read_table, write_table
from nearfield.errors import DamagedArtefact, MissingFile

MEASURED = Outcome(
    "songs", "l2", 1_000, 12, 10, "queries", 100, "faiss-hnsw", "M=16", "efSearch=40", 2,
    recall=0.9, qps=1234.5, repetition=1, repetition_seconds=(0.25, 0.125, 0.5),
    repetition_recalls=(0.9, 0.9, 0.9),
)  # fmt: skip
FAILED = replace(MEASURED, method="annoy", status=Status.TIMEOUT, reason="60 s", recall=None)


def test_outcomes_come_back_as_they_were(tmp_path):
    write_table(tmp_path, [MEASURED, FAILED])
    assert read_table(tmp_path) == [FAILED, replace(MEASURED)]


def test_parquet_and_csv_have_the_same_columns_and_figures(tmp_path):
    write_table(tmp_path, [MEASURED, FAILED])
    parquet = pq.read_table(tmp_path / PARQUET)
    with (tmp_path / CSV).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert parquet.column_names == list(rows[0]) == list(COLUMNS)
    assert [row["qps"] for row in rows] == ["1234.5", "1234.5"]
    assert [row["status"] for row in rows] == parquet["status"].to_pylist() == ["timeout", "ok"]
    assert rows[1]["repetition_seconds"] == "0.25;0.125;0.5"


def test_the_order_of_writing_changes_nothing(tmp_path):
    for name, outcomes in (("a", [MEASURED, FAILED]), ("b", [FAILED, MEASURED])):
        write_table(tmp_path / name, outcomes)
    assert (tmp_path / "a" / CSV).read_bytes() == (tmp_path / "b" / CSV).read_bytes()


def test_a_missing_or_broken_table_is_named(tmp_path):
    with pytest.raises(MissingFile, match="expected the table of a benchmark"):
        read_table(tmp_path)
    (tmp_path / PARQUET).write_bytes(b"PAR1 no more")
    with pytest.raises(DamagedArtefact, match="finished measurements are kept"):
        read_table(tmp_path)


def test_an_empty_table_can_be_read(tmp_path):
    write_table(tmp_path, [])
    assert read_table(tmp_path) == []
    assert set(asdict(MEASURED)) == set(COLUMNS)
