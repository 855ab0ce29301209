"""Other people's tools on a dump: pandas, Spark, frictionless, mlcroissant.

They come with the extra `interop` (700 MB), Spark needs Java too; where one isn't there, its test
is skipped and says so. `make test` leaves them out: `make test-interop` installs and runs them.
"""

import json
import shutil
import sys

import h5py
import numpy as np
import pytest

from tests.dumps.dump_case import K, N, dumped

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # theirs, about each other
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return dumped(tmp_path_factory.mktemp("interop")).path


@pytest.fixture(scope="module")
def truth(made):
    """Ids, neighbours, distances as bits: from the run's own matrix, which none of them reads."""
    with h5py.File(made.parents[1] / "run" / "matrix.h5") as file:
        ids = file["recording_ids"].asstr()[...].tolist()
        return ids, file["neighbours"][...], file["distances"][...].view(np.uint32)


def agrees(truth, ids, neighbours, distances):
    assert list(ids) == truth[0]
    np.testing.assert_array_equal(np.array(neighbours), truth[1])
    np.testing.assert_array_equal(np.array(distances, np.float32).view(np.uint32), truth[2])


def flat_of(truth):
    """Of every pair, in order: id, rank, the neighbour's id, the distance's bits."""
    ids, neighbours, bits = truth
    return [
        (ids[row], rank + 1, ids[neighbours[row, rank]], int(bits[row, rank]))
        for row in range(N)
        for rank in range(K)
    ]


def bits_of(distance):
    return int(np.float32(distance).view(np.uint32))


def test_pandas_reads_the_parquet(made, truth):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(made / "matrix.parquet")
    assert frame["row"].tolist() == list(range(N))
    columns = np.stack(frame["neighbours"]), np.stack(frame["distances"])
    agrees(truth, frame["recording_id"], *columns)


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql")
    if not shutil.which("java"):
        pytest.skip("no Java here")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYSPARK_PYTHON", sys.executable)
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        session = builder.getOrCreate()
        yield session
        session.stop()


def test_spark_reads_every_list_to_the_bit(made, truth, spark):
    for name in ("matrix.parquet", "sample.parquet"):
        rows = spark.read.parquet(str(made / name)).orderBy("row").collect()
        assert [row.row for row in rows] == list(range(N))
        ids = [row.recording_id for row in rows]
        agrees(truth, ids, [row.neighbours for row in rows], [row.distances for row in rows])
    names = np.array(truth[0])[truth[1]].tolist()
    assert [row.neighbour_ids for row in rows] == names


def test_spark_reads_the_flat_form_to_the_bit(made, truth, spark):
    flat = spark.read.parquet(str(made / "matrix-flat.parquet")).collect()
    place = {name: row for row, name in enumerate(truth[0])}
    found = [(p.recording_id, p.rank, p.neighbour_id, bits_of(p.distance)) for p in flat]
    assert sorted(found, key=lambda pair: (place[pair[0]], pair[1])) == flat_of(truth)


def test_spark_reads_labels_and_filters_by_them(made, truth, spark):
    recordings = spark.read.parquet(str(made / "recordings.parquet"))
    assert [row.recording_id for row in recordings.orderBy("row").collect()] == truth[0]
    one = recordings.filter("year = 1901").collect()
    assert [(row.recording_id, row.title) for row in one] == [(truth[0][1], 'Tïtle "1", {a}\nb')]


def test_frictionless_finds_the_data_package_valid(made, tmp_path):
    frictionless = pytest.importorskip("frictionless")
    found = frictionless.validate(str(made / "datapackage.json"))
    assert found.valid, found.flatten()
    assert len(json.loads((made / "datapackage.json").read_text())["resources"]) == 10
    broken = shutil.copytree(made, tmp_path / "broken")
    (broken / "matrix.h5").write_bytes((made / "matrix.h5").read_bytes()[:-1])
    assert not frictionless.validate(str(broken / "datapackage.json")).valid


def test_mlcroissant_reads_every_record_set(made, truth):
    croissant = pytest.importorskip("mlcroissant")
    dataset = croissant.Dataset(jsonld=made / "croissant.json")
    assert not dataset.metadata.issues.errors
    records = list(dataset.records("matrix"))
    agrees(
        truth,
        [texts(record["matrix/recording_id"]) for record in records],
        [record["matrix/neighbours"] for record in records],
        [record["matrix/distances"] for record in records],
    )
    for name in ("recordings", "sample", "matrix-flat"):
        assert len(list(dataset.records(name))) == (N * K if name == "matrix-flat" else N)


def texts(value):
    return value.decode() if isinstance(value, bytes) else value
