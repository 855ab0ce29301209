"""The sharded index over every library: answers, bounds, memory, damage, and what is measured."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from distributed import Client

from benchmark.datasets.manifold import manifold
from benchmark.methods import METHODS
from benchmark.methods.base import tie_aware_recall
from index_build.index.build import (
    IndexOptions,
    build_index,
    configured,
    cut_into_shards,
    plan_index,
)
from index_build.index.cells import bounded_shards, route
from index_build.index.layout import LIBRARY, create_index, library_bytes, shard_path
from index_build.index.search import open_index
from index_build.index.work import build_file, check_file, shard_is_finished
from nearfield.cluster import ClusterOptions, connected
from nearfield.errors import DamagedArtefact, InputRejected, MissingFile, UsageError
from nearfield.vectorset import Geometry, write_vector_set

LIBRARIES = [
    name
    for name in ("faiss-hnsw", "faiss-ivf", "nmslib-hnsw", "annoy", "hnswlib")
    if name in METHODS and METHODS[name].unavailable() is None
]


def curved(n, d=12, seed=0):
    rng = np.random.default_rng(seed)
    made = np.tanh(rng.standard_normal((n, 4)) @ np.random.default_rng(9).standard_normal((4, d)))
    return made.astype(np.float32)


def write_set(path, vectors, space="l2"):
    ids = pa.table({"recording_id": [f"id-{i}" for i in range(len(vectors))]})
    return write_vector_set(path, vectors, ids, Geometry(space))


NOBODY = cast(Client, None)
"""Enough where every shard is there: nothing is left to submit."""


def built_here(vector_set, path, options):
    """An index whose shards are made in this process, by what the children run."""
    config, _ = configured(vector_set, options)
    create_index(path, config)
    for number in range(cut_into_shards(vector_set, path, config)):
        if not shard_is_finished(path, config, number):
            build_file(path, config, number, 2)
            check_file(path, config, number, 2, {})
    return build_index(vector_set, path, options, NOBODY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("indexes")


@pytest.fixture(scope="module")
def made(folder):
    """A function that gives a finished index of 900 vectors by that library, made once."""
    vector_set = write_set(folder / "vectors", curved(900))

    def make(method):
        path = folder / method
        if not path.exists():
            built_here(vector_set, path, IndexOptions(method, shard_rows=400, k=10))
        return path

    return make


def nearest(queries, vectors, k):
    far = np.sqrt(
        ((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(axis=2)
    ).astype(np.float32)
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), far.shape), far), axis=1)[:, :k]
    return order, np.take_along_axis(far, order, 1)


@pytest.mark.parametrize("method", LIBRARIES)
class TestEveryLibrary:
    def test_new_vectors_get_their_neighbours_by_it_and_exactly(self, made, method):
        index = open_index(made(method))
        queries = curved(50, seed=3)
        rows, distances = nearest(queries, curved(900), 10)
        exact = index.search(queries, 10, exact=True)
        np.testing.assert_allclose(exact.distances, distances, rtol=1e-6)
        assert (exact.rows == rows).mean() > 0.999
        found = index.search(queries, 10, shards=index.shards)
        assert (found.distances <= distances[:, -1:] * (1 + 1e-6)).mean() > 0.9
        assert (np.diff(found.distances, axis=1) >= 0).all()
        assert index.search(queries, 10, recall=0.5).shards <= index.shards

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
    def test_a_damaged_file_is_named_and_never_opened(self, made, method, damage, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made(method), path)
        library = shard_path(path, 0) / LIBRARY
        file = max(library.iterdir(), key=lambda it: it.stat().st_size)
        whole = file.read_bytes()
        file.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "flipped": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
                "foreign": b"x" * len(whole),
            }[damage]
        )
        with pytest.raises(DamagedArtefact, match="make it anew"):
            open_index(path).search(curved(3), 5, shards=3)


@pytest.mark.parametrize("method", LIBRARIES)
def test_threads_that_ask_at_once_get_what_each_would_alone(made, method):
    path = made(method)
    limit = max(library_bytes(path, number) for number in range(3))
    index = open_index(path, memory_bytes=limit)
    queries = curved(40, seed=6)
    asked = [(queries[i : i + 1], 3 + 5 * (i % 2), 1 + i % index.shards) for i in range(40)]

    def answer(it):
        return index.search(it[0], it[1], shards=it[2]).rows.tolist()

    alone = [answer(it) for it in asked]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, asked)) == alone


class TestLimits:
    def test_an_index_larger_than_its_memory_still_answers(self, made):
        path = made("faiss-hnsw")
        whole = open_index(path)
        sizes = [library_bytes(path, number) for number in range(whole.shards)]
        limit = max(sizes)
        small = open_index(path, memory_bytes=limit)
        queries = curved(40, seed=5)
        expected = whole.search(queries, 7, shards=whole.shards)
        for _ in range(2):
            found = small.search(queries, 7, shards=whole.shards)
            np.testing.assert_array_equal(found.rows, expected.rows)
            assert small.store.used_bytes <= limit
        assert sum(sizes) > limit
        assert small.store.loads > whole.store.loads == whole.shards

    def test_a_limit_below_one_shard_is_refused(self, made):
        with pytest.raises(UsageError, match="memory limit of at least"):
            open_index(made("faiss-hnsw"), memory_bytes=1000)

    def test_unless_one_is_asked_for_a_large_shard_is_no_reason_to_refuse(self, made):
        path = made("faiss-hnsw")
        index = open_index(path, usual_bytes=1000)
        index.search(curved(40, seed=5), 7, shards=index.shards)
        sizes = [library_bytes(path, number) for number in range(index.shards)]
        assert 0 < index.store.used_bytes <= max(sizes) < sum(sizes)
        assert index.store.loads == index.shards

    def test_nothing_is_loaded_before_it_is_asked_for(self, made):
        index = open_index(made("faiss-hnsw"))
        assert index.store.loads == 0
        index.search(curved(1), 3, shards=1)
        assert index.store.loads == 1

    def test_a_file_that_changes_after_it_was_loaded_is_checked_again(self, made, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        limit = max(library_bytes(path, number) for number in range(3))
        index = open_index(path, memory_bytes=limit)
        index.search(curved(20), 3, shards=index.shards)
        for number in range(index.shards):
            file = max(
                (shard_path(path, number) / LIBRARY).iterdir(), key=lambda it: it.stat().st_size
            )
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(DamagedArtefact):
            index.search(curved(20), 3, shards=index.shards)


class TestBuild:
    def test_again_keeps_everything_and_another_configuration_is_refused(self, made, folder):
        path = made("faiss-hnsw")
        vector_set = write_set(folder / "vectors", curved(900))
        again = build_index(vector_set, path, IndexOptions("faiss-hnsw", 400, 10), NOBODY)
        assert not again.made
        with pytest.raises(UsageError, match="k 10 there, 20 asked"):
            build_index(vector_set, path, IndexOptions("faiss-hnsw", 400, 20), NOBODY)

    @pytest.mark.long
    def test_a_missing_shard_is_made_again_and_the_others_are_kept(self, made, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        (path / "manifest.json").unlink()
        shutil.rmtree(shard_path(path, 1) / LIBRARY)
        vector_set = write_set(tmp_path / "vectors", curved(900))
        with connected(ClusterOptions(workers=1)) as client:
            built = build_index(vector_set, path, IndexOptions("faiss-ivf", 400, 10), client)
        assert built.kept == built.shards - 1
        assert open_index(path).search(curved(5), 5, shards=1).rows.min() >= 0

    def test_another_cut_keeps_no_library_of_other_vectors(self, made, tmp_path, monkeypatch):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        config = open_index(path).config
        (path / "centres.npy").write_bytes(b"damaged")
        first = np.load(shard_path(path, 0) / "rows.npy")

        def with_first_shard_elsewhere(vectors, rows, most, **options):
            cut = bounded_shards(vectors, rows, most, **options)
            np.testing.assert_array_equal(cut.members[0], first)
            return replace(cut, members=[cut.members[0][:-1], *cut.members[1:]])

        monkeypatch.setattr("index_build.index.build.bounded_shards", with_first_shard_elsewhere)
        shards = cut_into_shards(write_set(tmp_path / "vectors", curved(900)), path, config)
        there = [shard_is_finished(path, config, number) for number in range(shards)]
        assert there == [False] + [True] * (shards - 1)

    def test_killed_writers_leave_nothing_that_stays(self, made, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        left = path / f".members.npy.partial-{'0' * 12}"
        left.touch()
        create_index(path, open_index(path).config)
        assert not left.exists()

    def test_a_shard_of_another_index_is_not_taken_for_ours(self, made, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        shutil.rmtree(shard_path(path, 0))
        shutil.copytree(shard_path(made("faiss-hnsw"), 0), shard_path(path, 0))
        with pytest.raises(DamagedArtefact, match="belongs to another index"):
            open_index(path).search(curved(5), 5, shards=3)

    def test_recall_is_measured_for_each_k_and_grows_with_shards(self, made):
        facts = open_index(made("faiss-hnsw")).facts
        points = list(facts["recall"]["10"].values())
        assert points == sorted(points)
        assert points[-1] > 0.95
        assert facts["sample"] == 400

    @pytest.mark.skipif("annoy" not in LIBRARIES, reason="needs annoy")
    @pytest.mark.slow
    def test_few_neighbours_are_found_as_surely_as_is_said(self, tmp_path):
        # its effort grows with k: what suffices for 100 neighbours is too little for 10
        vectors = manifold(7_000, 64)
        vector_set = write_set(tmp_path / "vectors", vectors[:6_000])
        built_here(vector_set, tmp_path / "index", IndexOptions("annoy", shard_rows=2_000, k=100))
        index, strangers = open_index(tmp_path / "index"), vectors[6_000:]
        truth = index.search(strangers, 10, exact=True).distances
        shards, said = max(index.facts["recall"]["10"].items(), key=lambda point: point[1])
        found = index.search(strangers, 10, shards=int(shards)).distances
        assert tie_aware_recall(found, truth) > said - 0.01

    def test_a_plan_says_how_many_shards_and_touches_nothing(self, folder, tmp_path):
        vector_set = write_set(tmp_path / "vectors", curved(900))
        plan = plan_index(vector_set, IndexOptions("auto", shard_rows=400))
        assert (plan.shards, plan.n, plan.method) == (3, 900, "faiss-hnsw")
        assert plan.disk_bytes > 900 * 12 * 4

    def test_a_file_without_its_manifest_does_not_count(self, made, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(made("faiss-ivf"), path)
        config = open_index(path).config
        assert shard_is_finished(path, config, 0)
        (shard_path(path, 0) / "library.json").unlink()
        assert not shard_is_finished(path, config, 0)
        build_file(path, config, 0, 1)
        assert not shard_is_finished(path, config, 0)
        check_file(path, config, 0, 1, {})
        assert shard_is_finished(path, config, 0)


class TestQuestions:
    @pytest.fixture
    def index(self, made):
        return open_index(made("faiss-hnsw"))

    def test_another_width(self, index):
        with pytest.raises(InputRejected, match="vectors of 12 numbers"):
            index.search(curved(3, d=5), 3)

    def test_not_finite(self, index):
        wrong = curved(3)
        wrong[1, 2] = np.nan
        with pytest.raises(InputRejected, match="row 1"):
            index.search(wrong, 3)

    @pytest.mark.parametrize("shards", [0, 99])
    def test_more_or_fewer_shards_than_there_are(self, index, shards):
        with pytest.raises(UsageError, match=r"expected shards in 1\.\."):
            index.search(curved(1), 3, shards=shards)

    def test_two_ways_at_once(self, index):
        with pytest.raises(UsageError, match="one of shards, recall and exact"):
            index.search(curved(1), 3, shards=1, exact=True)

    def test_a_recall_that_was_never_reached_or_measured(self, index):
        index.facts["recall"] = {"10": {"1": 0.7, "3": 0.9}}
        assert index.shards_for(0.8, 10) == 3
        with pytest.raises(UsageError, match=r"reached a recall of 0\.9000"):
            index.shards_for(0.95, 10)
        with pytest.raises(UsageError, match="measured up to k = 10, not 50"):
            index.shards_for(0.5, 50)

    def test_more_neighbours_than_there_are(self, index):
        found = index.search(curved(2), 2_000, exact=True)
        assert found.rows.shape == (2, 900)
        assert sorted(found.rows[0]) == list(range(900))

    def test_ids_of_what_was_found(self, index):
        found = index.search(curved(2), 2, exact=True)
        assert index.ids(found.rows)[1] == [f"id-{row}" for row in found.rows[1]]

    def test_no_index_there(self, tmp_path):
        with pytest.raises(MissingFile, match="nearfield index"):
            open_index(tmp_path)


class TestEqualVectors:
    @pytest.mark.slow
    def test_all_of_them_are_answered_and_the_bound_holds(self, tmp_path):
        vectors = curved(300)
        vectors[100:160] = vectors[7]
        vector_set = write_set(tmp_path / "vectors", vectors)
        built = built_here(vector_set, tmp_path / "index", IndexOptions("faiss-ivf", 100, 10))
        index = open_index(built.path)
        found = index.search(vectors[7:8], 61, shards=index.shards)
        assert found.rows[0].tolist() == [7, *range(100, 160)]
        assert (found.distances == 0).all()
        sizes = [len(index.store.arrays(number)[0]) for number in range(index.shards)]
        assert max(sizes) <= 100
        assert sum(sizes) == 240


class TestCutting:
    @pytest.mark.parametrize("most", [1, 7, 100, 5_000])
    def test_shards_are_bounded_and_hold_every_row_once(self, most):
        vectors = curved(1_000)
        cut = bounded_shards(vectors, np.arange(1_000, dtype=np.int32), most, seed=0)
        assert max(map(len, cut.members)) <= most
        assert sorted(np.concatenate(cut.members)) == list(range(1_000))
        for centre, part in zip(cut.centres, cut.members, strict=True):
            np.testing.assert_allclose(centre, vectors[part].mean(axis=0), atol=1e-5)

    def test_equal_vectors_are_cut_too(self):
        vectors = np.ones((500, 4), np.float32)
        cut = bounded_shards(vectors, np.arange(500, dtype=np.int32), 60, seed=0)
        assert max(map(len, cut.members)) <= 60

    def test_routes_start_with_the_nearest_centre(self):
        centres = np.array([[0, 0], [10, 0], [0, 5]], np.float32)
        queries = np.array([[9, 0], [0, 4]], np.float32)
        assert route(queries, centres, 2, "l2").tolist() == [[1, 0], [2, 0]]
        assert route(queries, centres, 1, "ip").tolist() == [[1], [2]]
