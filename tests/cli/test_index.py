"""`nearfield index` and `nearfield query --vector` as a user runs them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from index_build.index.build import IndexOptions
from nearfield import api
from nearfield.api.indexes import QueryOptions
from nearfield.cluster import ClusterOptions
from nearfield.errors import InputRejected, MissingFile, NearfieldError, UsageError
from tests.cli.conftest import Program, clustered
from tests.index_build.brute import nearest

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def indexed(stages):
    """The folder of a run with an index of its vectors, made once."""
    program = Program(stages / "built")
    done = program(
        "index", "vectors", "--out", "index", "-k", 10, "--method", "faiss-ivf",
        "--shard-rows", 200, "--matrix", "asked", "--recall", 0.9, "--workers", 1, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["config"]["method"] == "faiss-ivf"
    return program


class TestQueries:
    def test_a_vector_by_the_index_and_exactly(self, indexed, tmp_path):
        vectors = np.load(indexed.folder / "embeddings.npy")
        np.save(tmp_path / "one.npy", vectors[7])
        found = indexed(
            "query", "--vector", tmp_path / "one.npy", "--index", "index", "-k", 6, "--exact",
            "--json",
        )  # fmt: skip
        assert found.code == 0, found.err
        rows, _ = nearest(vectors, 5, "l2")
        assert [hit["recording_id"] for hit in found.json] == [
            "song-7", *(f"song-{row}" for row in rows[7]),
        ]  # fmt: skip
        assert found.json[0]["distance"] == 0

    @pytest.mark.parametrize("name", ["q.npy", "q.json", "pretty.json", "q.jsonl", "q.csv"])
    def test_the_same_vectors_in_every_format(self, indexed, tmp_path, name):
        queries = clustered(3, seed=4)
        if name == "q.npy":
            np.save(tmp_path / name, queries)
        elif name == "q.csv":
            np.savetxt(tmp_path / name, queries, delimiter=",", fmt="%.9g")
        else:
            lines = [json.dumps([float(it) for it in line]) for line in queries]
            text = "\n".join(lines) if name == "q.jsonl" else f"[{','.join(lines)}]"
            text = json.dumps(json.loads(text), indent=1) if name == "pretty.json" else text
            (tmp_path / name).write_text(text)
        options = QueryOptions(k=4, exact=True)
        answers = api.query_vectors(tmp_path / name, indexed.folder / "index", options)
        index = api.open_index(indexed.folder / "index")
        expected = index.search(queries, 4, exact=True)
        np.testing.assert_array_equal(answers.found.rows, expected.rows)

    def test_recordings_are_transformed_with_the_statistics_of_the_indexed_set(self, tmp_path):
        raw = clustered(200) * 50 + 7
        head = ",".join(["id", *(f"c{i}" for i in range(16))])
        for name, rows in (("all", range(200)), ("asked", (3, 8))):
            lines = [",".join([f"t{row}", *(f"{it:.7g}" for it in raw[row])]) for row in rows]
            (tmp_path / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
        api.ingest(tmp_path / "all.csv", tmp_path / "vectors")
        api.index(
            tmp_path / "vectors", tmp_path / "index", IndexOptions("faiss-ivf", k=5),
            cluster=ClusterOptions(workers=1),
        )  # fmt: skip
        options = QueryOptions(k=1, exact=True)
        answers = api.query_vectors(tmp_path / "asked.csv", tmp_path / "index", options)
        assert answers.names == ["t3", "t8"]
        assert answers.ids == [["t3"], ["t8"]]
        assert (answers.found.distances < 1e-4).all()
        np.save(tmp_path / "asked.npy", raw[[3, 8]])
        answers = api.query_vectors(tmp_path / "asked.npy", tmp_path / "index", options)
        assert answers.ids == [["t3"], ["t8"]]
        assert (answers.found.distances < 1e-4).all()

        np.save(tmp_path / "there.npy", np.load(tmp_path / "vectors" / "vectors.npy")[[3, 8]])
        nearfield = Program(tmp_path)
        asked = ("query", "--vector", "there.npy", "--index", "index", "-k", 1, "--exact", "--json")
        found = nearfield(*asked, "--scaled").json
        assert [(hit["recording_id"], hit["distance"]) for hit in found] == [("t3", 0), ("t8", 0)]
        assert {hit["distance"] for hit in nearfield(*asked).json} != {0}
        with pytest.raises(UsageError, match="numbers alone with --scaled"):
            api.query_vectors(tmp_path / "asked.csv", tmp_path / "index", QueryOptions(scaled=True))

    def test_answers_as_files(self, indexed, tmp_path):
        np.save(tmp_path / "q.npy", clustered(3, seed=4))
        for name in ("a.npy", "a.parquet"):
            done = indexed(
                "query", "--vector", tmp_path / "q.npy", "--index", "index", "-k", 4,
                "--out", tmp_path / name,
            )  # fmt: skip
            assert done.code == 0, done.err
        both = np.load(tmp_path / "a.npy")
        assert both.shape == (3, 4)
        table = pq.read_table(tmp_path / "a.parquet")
        assert table["recording_id"].to_pylist()[:4] == [f"song-{row}" for row in both["row"][0]]
        np.testing.assert_array_equal(table["distance"].to_numpy()[:4], both["distance"][0])

    def test_every_row_asked_gives_a_matrix_that_verifies(self, indexed):
        report = api.verify(indexed.folder / "asked")
        assert report.passed, report.problems
        assert report.recall >= 0.9


class TestMistakes:
    def test_options_that_do_not_belong_together(self, indexed):
        assert indexed("query").code == 2
        assert indexed("query", "song-1", "--index", "index").code == 2
        assert indexed("query", "--vector", "embeddings.npy").code == 2
        assert indexed("query", "--vector", "embeddings.npy", "--index", "index",
                       "--run", "run").code == 2  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("q.json", "[1, 2"),
            ("q.txt", "a,b"),
            ("q.npy", "no"),
            ("q.json", '[["x"]]'),
            ("q.json", '[{"id": 1}]'),
            pytest.param("q.json", f"[[1{'0' * 400}]]", id="too large"),
            pytest.param("q.json", "[" * 100_000, id="nested"),
        ],
    )
    def test_files_that_hold_no_vectors(self, indexed, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputRejected, match="can't be read as vectors"):
            api.query_vectors(tmp_path / name, indexed.folder / "index")

    def test_an_object_is_a_recording_as_ingest_reads_them(self, indexed, tmp_path):
        (tmp_path / "q.json").write_text('{"vector": [1, 2]}')
        with pytest.raises(NearfieldError) as caught:
            api.query_vectors(tmp_path / "q.json", indexed.folder / "index")
        assert "AcousticBrainz" in str(caught.value)

    def test_no_file_and_another_width(self, indexed, tmp_path):
        with pytest.raises(MissingFile, match="expected vectors at"):
            api.query_vectors(tmp_path / "none.npy", indexed.folder / "index")
        np.save(tmp_path / "q.npy", np.ones((2, 3), np.float32))
        with pytest.raises(InputRejected, match="rows of 16 numbers"):
            api.query_vectors(tmp_path / "q.npy", indexed.folder / "index")

    def test_an_unknown_method_or_format(self, indexed, tmp_path):
        assert indexed("index", "vectors", "--out", tmp_path / "i", "--method", "best").code == 2
        np.save(tmp_path / "q.npy", clustered(3, seed=4))
        done = indexed("query", "--vector", tmp_path / "q.npy", "--index", "index",
                       "--out", tmp_path / "a.txt")  # fmt: skip
        assert done.code == 2

    @pytest.mark.parametrize(
        ("matrix", "recall", "said"),
        [("run", 1.5, "at most 1"), ("i", 0.9, "of its own"), ("other", 0.9, "isn't a run")],
    )
    def test_what_a_matrix_cant_be_is_said_before_the_index_is_built(
        self, indexed, tmp_path, matrix, recall, said
    ):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        done = indexed("index", "vectors", "--out", tmp_path / "i", "--matrix", tmp_path / matrix,
                       "--recall", recall)  # fmt: skip
        assert done.code == 2
        assert said in done.err
        assert not (tmp_path / "i").exists()

    @pytest.mark.parametrize(
        ("matrix", "said"), [("run", "another run ("), ("asked", "another index")]
    )
    def test_what_another_matrix_lies_in_is_refused_before_the_index_is_built(
        self, indexed, tmp_path, matrix, said
    ):
        done = indexed("index", "vectors", "--out", tmp_path / "i", "-k", 10, "--shard-rows", 150,
                       "--method", "faiss-ivf", "--matrix", matrix, "--recall", 0.9)  # fmt: skip
        assert done.code == 2
        assert said in done.err
        assert not (tmp_path / "i").exists()

    def test_a_plan_writes_nothing(self, indexed, tmp_path):
        plan = indexed("index", "vectors", "--out", tmp_path / "i", "--dry-run", "--json")
        assert plan.json["n"] == 400
        plan = indexed("index", "vectors", "--out", tmp_path / "i", "--matrix", "r", "--dry-run")
        assert "400 x 100 neighbours" in plan.out
        assert not (tmp_path / "i").exists()

    def test_an_index_of_removed_recordings_is_refused(self, indexed, tmp_path):
        api.update(indexed.folder / "run", tmp_path / "less", remove=["song-3"])
        with pytest.raises(UsageError, match="nearfield compact"):
            api.plan_index(tmp_path / "less" / "vectors")
