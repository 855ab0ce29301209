"""A dump's files, each read by a library that didn't write it."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import duckdb
import h5py
import netCDF4
import numpy as np
import psycopg2
import pyarrow.parquet as pq
import pytest

from dumps.dump.write import DumpOptions, write_dump
from nearfield.api import dump, plan_dump
from nearfield.errors import QualityGate, UsageError
from tests.dumps.dump_case import (
    EVERYTHING,
    K,
    N,
    csv_rows,
    dumpable_run,
    dumped,
    provenance,
)
from tests.dumps.postgres_case import write_verdict
from tests.dumps.small_run import alter


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return dumped(tmp_path_factory.mktemp("dump"))


@pytest.fixture(scope="module")
def truth(made):
    """Ids, neighbours, distances as bits: from the run's own matrix."""
    with h5py.File(made.path.parents[1] / "run" / "matrix.h5") as file:
        ids = file["recording_ids"].asstr()[...].tolist()
        return ids, file["neighbours"][...], file["distances"][...].view(np.uint32)


def agrees(truth, ids, neighbours, distances):
    assert list(ids) == truth[0]
    np.testing.assert_array_equal(np.asarray(neighbours), truth[1])
    values = np.asarray(distances, np.float32)
    np.testing.assert_array_equal(values.view(np.uint32), truth[2])


def test_the_name_says_when_and_how_many(made):
    assert re.fullmatch(rf"nearfield-matrix-\d{{8}}-\d{{6}}-k{K}", made.path.name)
    stamp = datetime.strptime(made.path.name[17:32], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 600
    assert (made.path.parent / "LATEST").read_text() == f"{made.path.name}\n"
    assert sorted(path.name for path in made.path.parent.iterdir()) == ["LATEST", made.path.name]


class TestNumbers:
    def test_hdf5_read_by_netcdf_carries_every_bit(self, made, truth):
        with netCDF4.Dataset(made.path / "matrix.h5") as file:
            file.set_auto_mask(False)
            found = [file[name][:] for name in ("recording_ids", "neighbours", "distances")]
        agrees(truth, *found)

    def test_hdf5_gives_one_row_to_plain_h5py(self, made, truth):
        with h5py.File(made.path / "matrix.h5") as file:
            np.testing.assert_array_equal(file["neighbours"][7], truth[1][7])
            assert file["recording_ids"].asstr()[7] == truth[0][7]

    def test_parquet_read_by_duckdb_carries_every_bit(self, made, truth):
        found = duckdb.sql(
            'SELECT recording_id, neighbours, distances, "row" '
            f"FROM '{made.path}/matrix.parquet' ORDER BY \"row\""
        ).fetchall()
        ids, neighbours, distances, rows = zip(*found, strict=True)
        assert rows == tuple(range(N))
        agrees(truth, ids, neighbours, distances)

    def test_flat_parquet_read_by_duckdb_names_the_same_pairs(self, made, truth):
        found = duckdb.sql(f"FROM '{made.path}/matrix-flat.parquet'").fetchall()
        ids, ranks, names, distances = zip(*found, strict=True)
        row_of = {name: row for row, name in enumerate(truth[0])}
        assert ranks == tuple(range(1, K + 1)) * N
        neighbours = np.array([row_of[name] for name in names]).reshape(N, K)
        agrees(truth, ids[::K], neighbours, np.array(distances, np.float32).reshape(N, K))

    def test_csv_read_by_python_carries_every_bit(self, made, truth):
        header, *rows = csv_rows(made.path / "matrix.csv.zst")
        assert header == ["row", "recording_id", "neighbours", "distances"]
        numbers = [
            [cell[1:-1].split(",") for cell in (row[2], row[3]) if cell[0] + cell[-1] == "{}"]
            for row in rows
        ]
        neighbours = np.array([lists[0] for lists in numbers]).astype(np.int32)
        distances = np.array([lists[1] for lists in numbers]).astype(np.float32)
        agrees(truth, [row[1] for row in rows], neighbours, distances)

    @pytest.mark.postgres
    def test_csv_loads_with_copy_as_the_readme_says(self, made, truth, postgres):
        create, copy = fenced(made, "postgresql")[0].split(";\n")[:2]
        connection = psycopg2.connect(postgres)
        try:
            with connection.cursor() as cursor:
                cursor.execute(create.replace("CREATE TABLE", "CREATE TEMP TABLE"))
                unpacked = subprocess.run(
                    [sys.executable, "-c", UNPACK, made.path / "matrix.csv.zst"],
                    capture_output=True, check=True,
                ).stdout  # fmt: skip
                plain = made.path.parents[1] / "matrix.csv"
                plain.write_bytes(unpacked)
                with plain.open() as stream:
                    cursor.copy_expert(copy, stream)
                cursor.execute("SELECT recording_id, neighbours, distances FROM matrix ORDER BY 1")
                found = sorted(cursor.fetchall(), key=lambda row: truth[0].index(row[0]))
        finally:
            connection.close()
        agrees(truth, *zip(*found, strict=True))

    def test_the_sample_is_standalone(self, made, truth):
        found = duckdb.sql(f"FROM '{made.path}/sample.parquet'").fetchall()
        rows, ids, neighbours, distances, named = zip(*found, strict=True)
        assert rows == tuple(range(N))
        agrees(truth, ids, neighbours, distances)
        assert [list(each) for each in named] == [[truth[0][i] for i in row] for row in neighbours]


UNPACK = "import sys, zstandard; sys.stdout.buffer.write(zstandard.open(sys.argv[1], 'rb').read())"


class TestRecordings:
    def test_parquet_carries_the_labels(self, made):
        found = duckdb.sql(f"FROM '{made.path}/recordings.parquet' LIMIT 9").fetchall()
        assert found[1] == (1, "id 1'ß\"", 'Tïtle "1", {a}\nb', 1901, False)
        assert found[0][2:4] == (None, None)

    def test_csv_carries_the_same(self, made):
        header, *rows = csv_rows(made.path / "recordings.csv.zst")
        assert header == ["row", "recording_id", "title", "year", "live"]
        assert rows[1] == ["1", "id 1'ß\"", 'Tïtle "1", {a}\nb', "1901", "false"]
        assert rows[0][2:4] == ["", ""]
        assert len(rows) == N

    def test_labels_can_be_left_out(self, tmp_path):
        (tmp_path / "out").mkdir()
        options = DumpOptions(formats=("hdf5",), labels=False)
        made = write_dump(dumpable_run(tmp_path), tmp_path / "out", options)
        assert pq.read_schema(made.path / "recordings.parquet").names == ["row", "recording_id"]
        assert "matrix.parquet" not in made.files

    def test_a_label_called_row_gets_another_name(self, tmp_path):
        from tests.dumps.postgres_case import loadable_run

        run = loadable_run(tmp_path, n=9, k=2, labels={"row": list("abcdefghi")})
        (tmp_path / "out").mkdir()
        made = write_dump(run, tmp_path / "out", DumpOptions(formats=("parquet",)))
        names = pq.read_schema(made.path / "recordings.parquet").names
        assert names == ["row", "recording_id", "label_row"]

    def test_removed_recordings_are_left_out_of_all_tables(self, tmp_path):
        run = dumpable_run(tmp_path)
        lost = [5, 17]

        def remove(file):
            lists = file["neighbours"][...]
            for row, each in enumerate(lists):
                others = [i for i in range(N) if i not in {row, *lost, *each.tolist()}]
                each[np.isin(each, lost)] = others[: np.isin(each, lost).sum()]
            lists[lost] = -1
            distances = file["distances"][...]
            distances[lost] = np.inf
            file["neighbours"][...], file["distances"][...] = lists, distances
            file["removed"] = np.array(lost, np.int32)

        alter(run, remove)
        write_verdict(run)
        (tmp_path / "out").mkdir()
        made = write_dump(run, tmp_path / "out", EVERYTHING)
        kept = [row for row in range(N) if row not in lost]
        assert made.n == provenance(made.path)["recordings"] == N - 2
        for name in ("matrix", "recordings", "sample"):
            rows = duckdb.sql(f"SELECT \"row\" FROM '{made.path}/{name}.parquet'").fetchall()
            assert [row for (row,) in rows] == kept
        assert [int(row[0]) for row in csv_rows(made.path / "matrix.csv.zst")[1:]] == kept
        pairs = duckdb.sql(f"SELECT recording_id FROM '{made.path}/matrix-flat.parquet'")
        assert len(pairs.fetchall()) == (N - 2) * K


def fenced(made, language):
    text = (made.path / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class TestWords:
    @pytest.mark.parametrize("formats", [("hdf5", "parquet", "csv"), ("hdf5",)])
    def test_the_readmes_queries_run_in_its_folder(self, tmp_path, formats, monkeypatch):
        made = dumped(tmp_path, DumpOptions(formats=formats))
        monkeypatch.chdir(made.path)
        queries = fenced(made, "sql")
        assert len(queries) == 3
        nearest, hubs, mutual = (duckdb.sql(query).fetchall() for query in queries)
        with h5py.File(made.path / "matrix.h5") as file:
            lists = file["neighbours"][...]
        assert [row[0] for row in nearest] == lists[0].tolist()
        counts = np.bincount(lists.ravel(), minlength=N)
        assert [row[1] for row in hubs] == sorted(counts.tolist(), reverse=True)[:10]
        both = np.mean([row in lists[lists[row, 0]] for row in range(N)])
        assert mutual[0][0] == pytest.approx(both)

    def test_the_readmes_python_runs_in_its_folder(self, made):
        (program,) = fenced(made, "python")
        subprocess.run([sys.executable, "-c", program], cwd=made.path, check=True)

    def test_every_column_of_every_table_is_explained(self, made):
        text = (made.path / "README.md").read_text()
        for name in made.files:
            assert name in text or name in {"SHA256SUMS", "datapackage.json", "croissant.json"}
            if name.endswith(".parquet"):
                for column in pq.read_schema(made.path / name).names:
                    assert f"`{column}`" in text

    def test_sums_are_those_of_sha256sum(self, made):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=made.path, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": OK") == len(made.files) - 1

    def test_provenance_says_where_the_numbers_come_from(self, made):
        said = provenance(made.path)
        assert said["verification"]["passed"] is True
        assert said["run"]["k"] == K
        assert "vectors" not in said["run"]
        assert len(said["run"]["vectors_fingerprint"]) == 16
        assert said["versions"]["h5py"] == version("h5py")
        assert said["forced"] is False
        assert str(made.path.parents[1]) not in json.dumps(said)

    def test_the_licence_is_a_name_a_file_or_none(self, tmp_path, made):
        assert "CC0 1.0 Universal" in (made.path / "LICENSE.txt").read_text()
        own = tmp_path / "OWN"
        own.write_text("Do what you like.\n")
        given = dumped(tmp_path, DumpOptions(formats=("hdf5",), licence=str(own)))
        assert (given.path / "LICENSE.txt").read_text() == "Do what you like.\n"
        out = given.path.parent
        without = dump(out.parent / "run", out, DumpOptions(formats=("hdf5",)))
        assert "stated no licence" in (without.path / "LICENSE.txt").read_text()
        for wrong in ("MIT", str(tmp_path)):
            with pytest.raises(UsageError, match="neither"):
                dump(out.parent / "run", out, DumpOptions(licence=wrong))


class TestGate:
    def test_an_unverified_run_is_refused_and_force_is_recorded(self, tmp_path):
        run = dumpable_run(tmp_path)
        run.verification.unlink()
        with pytest.raises(QualityGate, match="isn't dumped"):
            dump(run.path, tmp_path / "out")
        made = dump(run.path, tmp_path / "out", DumpOptions(formats=("hdf5",), force=True))
        said = provenance(made.path)
        assert (said["forced"], said["verification"]) == (True, None)

    def test_the_same_again_does_nothing_and_other_content_makes_another(self, tmp_path):
        run = dumpable_run(tmp_path)
        first = dump(run.path, tmp_path / "out")
        again = dump(run.path, tmp_path / "out")
        assert (first.made, again.made, again.path) == (True, False, first.path)
        assert plan_dump(run.path, tmp_path / "out").same == first.path.name
        other = dump(run.path, tmp_path / "out", EVERYTHING)
        assert other.made
        assert other.path != first.path
        assert (tmp_path / "out" / "LATEST").read_text().strip() == other.path.name

    def test_flat_without_parquet_is_a_contradiction(self, tmp_path):
        with pytest.raises(UsageError, match="--flat"):
            dump(dumpable_run(tmp_path).path, tmp_path, DumpOptions(formats=("csv",), flat=True))
