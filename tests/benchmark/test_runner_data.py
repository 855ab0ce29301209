"""The split into base rows, queries and rows to add, from every kind of source."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from benchmark.runner.data import prepare_data
from benchmark.runner.truth import audit_given, truth_path, write_truth
from nearfield.errors import InputRejected, MissingFile, UsageError
from nearfield.neighbours import read_part
from nearfield.vectorset import Geometry, write_vector_set
from tests.benchmark.bench_case import surface


def split(folder, source, space=None):
    return prepare_data(source, (folder / "bench" / "data"), space=space, seed=0)


def as_npy(folder, vectors):
    np.save(folder / "songs.npy", vectors)
    return folder / "songs.npy"


def as_vector_set(folder, vectors, space="l2"):
    ids = pa.table({"recording_id": [f"s{i}" for i in range(len(vectors))]})
    return write_vector_set(folder / "songs", vectors, ids, Geometry(space)).path


def as_hdf5(folder, train, test, neighbours, distance="euclidean"):
    path = folder / "songs-6-euclidean.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = distance
        file["train"], file["test"] = train, test
        if neighbours is not None:
            file["neighbors"] = neighbours
    return path


def brute(queries, vectors, k):
    wide = ((queries[:, None].astype(float) - vectors[None].astype(float)) ** 2).sum(-1)
    return np.argsort(wide, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("make", [as_npy, as_vector_set])
def test_queries_are_held_out_and_samples_nest(tmp_path, make):
    vectors = surface(500)
    data = split(tmp_path, make(tmp_path, vectors))
    assert (data.name, data.base, data.whole, data.asked) == ("songs", 450, 500, 50)
    rows = np.load(data.path / "rows.npy")
    assert np.array_equal(data.vectors[:450], vectors[rows])
    assert sorted(map(tuple, data.vectors)) == sorted(map(tuple, vectors))
    assert np.array_equal(data.queries, data.vectors[450:])
    assert len(set(rows.tolist())) == 450
    assert data.distinct == 450


def test_the_same_split_comes_again_and_is_kept(tmp_path):
    source = as_npy(tmp_path, surface(500))
    first = split(tmp_path, source)
    written = (first.path / "vectors.npy").stat().st_mtime_ns
    assert split(tmp_path, source) == first
    assert (first.path / "vectors.npy").stat().st_mtime_ns == written


def test_a_directory_of_other_vectors_is_refused(tmp_path):
    split(tmp_path, as_npy(tmp_path, surface(500)))
    with pytest.raises(UsageError, match="holds the benchmark of other vectors"):
        split(tmp_path, as_npy(tmp_path, surface(500, seed=1)))


def test_queries_and_neighbours_of_an_ann_benchmarks_file_are_used(tmp_path):
    train, test = surface(300), surface(20, seed=5)
    data = split(tmp_path, as_hdf5(tmp_path, train, test, brute(test, train, 8)))
    assert (data.name, data.base, data.whole, data.asked) == ("songs-6-euclidean", 300, 300, 20)
    assert np.array_equal(data.queries, test)
    audit_given(data)
    path = truth_path(tmp_path, "queries", 300)
    path.parent.mkdir()
    write_truth(str(path), data, "queries", 300, 5, threads=1)
    rows = np.load(data.path / "rows.npy")
    assert np.array_equal(rows[read_part(path).neighbours], brute(test, train, 5))


def test_wrong_neighbours_of_a_file_are_found_out(tmp_path):
    train, test = surface(300), surface(20, seed=5)
    wrong = brute(test, train, 8)
    wrong[3] = brute(test, train, 300)[3, 100:108]
    data = split(tmp_path, as_hdf5(tmp_path, train, test, wrong))
    with pytest.raises(InputRejected, match="aren't the nearest of its test query 3"):
        audit_given(data)


def test_neighbours_beyond_the_rows_are_refused(tmp_path):
    train, test = surface(30), surface(2, seed=5)
    source = as_hdf5(tmp_path, train, test, np.full((2, 3), 30))
    with pytest.raises(InputRejected, match="name rows beyond its 30 train rows"):
        split(tmp_path, source)


@pytest.mark.parametrize("named", [10, 30])
def test_neighbours_of_other_queries_are_refused(tmp_path, named):
    train, test = surface(300), surface(30, seed=5)
    source = as_hdf5(tmp_path, train, test[:20], brute(test[:named], train, 8))
    with pytest.raises(InputRejected, match="each of the 20 test queries"):
        split(tmp_path, source)


def test_neighbours_that_are_no_whole_numbers_are_refused(tmp_path):
    train, test = surface(300), surface(20, seed=5)
    with pytest.raises(InputRejected, match="whole numbers"):
        split(tmp_path, as_hdf5(tmp_path, train, test, np.full((20, 8), np.nan)))


def test_unsorted_neighbours_are_sorted_before_the_nearest_are_taken(tmp_path):
    train, test = surface(300), surface(20, seed=5)
    data = split(tmp_path, as_hdf5(tmp_path, train, test, brute(test, train, 8)[:, ::-1]))
    path = truth_path(tmp_path, "queries", 300)
    path.parent.mkdir()
    write_truth(str(path), data, "queries", 300, 5, threads=1)
    rows = np.load(data.path / "rows.npy")
    assert np.array_equal(rows[read_part(path).neighbours], brute(test, train, 5))


def test_queries_of_another_width_are_refused(tmp_path):
    source = as_hdf5(tmp_path, surface(30), surface(2, d=4), None)
    with pytest.raises(InputRejected, match="expected test queries of 6 finite numbers"):
        split(tmp_path, source)


def test_under_cosine_rows_have_unit_length_and_zero_rows_are_named(tmp_path):
    vectors = surface(100)
    source = as_npy(tmp_path, vectors)
    data = split(tmp_path, source, "cosine")
    assert np.allclose(np.linalg.norm(data.vectors, axis=1), 1)
    (tmp_path / "zero").mkdir()
    vectors[7] = 0
    kept = as_vector_set(tmp_path / "zero", vectors, "cosine")
    with pytest.raises(InputRejected, match="zero vectors have no direction under cosine"):
        split(tmp_path / "zero", kept)


def test_equal_rows_are_counted(tmp_path):
    vectors = np.repeat(surface(50), 10, axis=0)
    assert split(tmp_path, as_npy(tmp_path, vectors)).distinct == 50


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_vectors_are_refused(tmp_path, n):
    with pytest.raises(InputRejected, match=f"at least 3 vectors; .* has {n}"):
        split(tmp_path, as_npy(tmp_path, surface(n)))


def test_three_vectors_are_enough(tmp_path):
    data = split(tmp_path, as_npy(tmp_path, surface(3)))
    assert (data.base, data.asked) == (2, 1)


def test_a_missing_source_and_a_wrong_space_are_named(tmp_path):
    with pytest.raises(MissingFile, match=r"expected a vector set, \.npy or ann-benchmarks"):
        split(tmp_path, tmp_path / "none")
    with pytest.raises(InputRejected, match="which is l2; got cosine"):
        split(tmp_path, as_vector_set(tmp_path, surface(30)), "cosine")


def test_naming_the_space_that_a_vector_set_has_changes_nothing(tmp_path):
    source = as_vector_set(tmp_path, surface(30))
    assert split(tmp_path, source, "l2") == split(tmp_path, source)


def test_a_file_with_a_nan_loses_that_row_and_its_stated_neighbours(tmp_path):
    train, test = surface(300), surface(20, seed=5)
    stated = brute(test, train, 8)
    train[4, 2] = np.nan
    data = split(tmp_path, as_hdf5(tmp_path, train, test, stated))
    assert (data.base, data.given) == (299, None)
