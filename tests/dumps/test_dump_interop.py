"""Other people's tools on a dump: pandas, Spark, frictionless, mlcroissant (extra `interop`)."""

import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
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
    table = pq.read_table(made / "matrix.parquet")
    return (
        np.array(table["neighbours"].to_pylist()),
        np.array(table["distances"].to_pylist(), np.float32).view(np.uint32),
    )


def agrees(truth, neighbours, distances):
    np.testing.assert_array_equal(np.array(neighbours), truth[0])
    np.testing.assert_array_equal(np.array(distances, np.float32).view(np.uint32), truth[1])


def test_pandas_reads_the_parquet(made, truth):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(made / "matrix.parquet")
    assert frame["row"].tolist() == list(range(N))
    agrees(truth, np.stack(frame["neighbours"]), np.stack(frame["distances"]))


def test_spark_reads_the_parquet(made, truth, monkeypatch):
    pytest.importorskip("pyspark")
    if not shutil.which("java"):
        pytest.skip("no Java here")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = session.getOrCreate()
    try:
        rows = spark.read.parquet(str(made / "matrix.parquet")).orderBy("row").collect()
        agrees(truth, [row.neighbours for row in rows], [row.distances for row in rows])
        flat = spark.read.parquet(str(made / "matrix-flat.parquet"))
        pairs = flat.select("rank", "distance").collect()
        assert sorted({pair.rank for pair in pairs}) == list(range(1, K + 1))
        distances = np.array([pair.distance for pair in pairs], np.float32).reshape(N, K)
        np.testing.assert_array_equal(distances.view(np.uint32), truth[1])
        titles = spark.read.parquet(str(made / "recordings.parquet")).select("title").collect()
        assert len(titles) == N
    finally:
        spark.stop()


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
        [record["matrix/neighbours"] for record in records],
        [record["matrix/distances"] for record in records],
    )
    for name in ("recordings", "sample", "matrix-flat"):
        assert len(list(dataset.records(name))) == (N * K if name == "matrix-flat" else N)
