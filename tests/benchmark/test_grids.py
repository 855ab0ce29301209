"""Grid files: read, checked against the methods, multiplied out."""

import pytest

from benchmark.grids import load_grid
from benchmark.methods import METHODS
from nearfield.errors import MissingFile, UsageError


def written(tmp_path, text):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


def test_the_default_grid_names_every_method():
    assert {one.name for one in load_grid()} >= set(METHODS)


def test_the_quick_grid_is_smaller():
    quick, whole = load_grid(quick=True), load_grid()
    assert 0 < len(quick) < len(whole)
    assert {one.name for one in quick} <= {one.name for one in whole}


def test_lists_are_multiplied_out_and_the_rest_keeps_its_default(tmp_path):
    grid = load_grid(written(tmp_path, "[faiss-hnsw]\nlinks = [8, 24]\nspaces = ['ip']"))
    assert [dict(one.parameters) for one in grid] == [
        {"links": 8, "build_effort": 200},
        {"links": 24, "build_effort": 200},
    ]
    assert {one.spaces for one in grid} == {frozenset({"ip"})}
    assert str(grid[0].method) == str(grid[0]) == "faiss-hnsw(links=8, build_effort=200)"


def test_two_tables_of_one_method_add_up_and_repeats_count_once(tmp_path):
    text = "[[annoy]]\ntrees = [5, 9]\n[[annoy]]\ntrees = 9\n[[annoy]]\ntrees = 7"
    assert [one.method.trees for one in load_grid(written(tmp_path, text))] == [5, 9, 7]


def test_quick_takes_the_quick_tables_only(tmp_path):
    text = "[annoy]\ntrees = [5, 9]\n[faiss-ivf]\nspaces = ['l2']\nquick = { efforts = [1] }"
    (only,) = load_grid(written(tmp_path, text), quick=True)
    assert (only.name, only.efforts, only.spaces) == ("faiss-ivf", (1,), {"l2"})


def test_efforts_grow_with_k_where_they_say_so(tmp_path):
    text = '[faiss-hnsw]\nefforts = ["2k", 64, "1.5k", "64k"]\n[annoy]'
    given, suggested = load_grid(written(tmp_path, text))
    assert given.efforts_for(9, [1, 2]) == [15, 20, 64, 640]
    assert given.efforts_for(0, []) == [2, 64]
    assert suggested.efforts_for(9, [1, 2]) == [1, 2]


def test_a_fingerprint_is_of_what_is_built(tmp_path):
    grid = load_grid(
        written(tmp_path, "[[annoy]]\ntrees=50\nefforts=[9]\n[[annoy]]\n[[faiss-ivf]]")
    )
    assert grid[0].fingerprint == grid[1].fingerprint != grid[2].fingerprint


def test_a_method_may_live_anywhere(tmp_path):
    text = '[mine]\nclass = "benchmark.methods.faiss_flat:FaissFlat"'
    (mine,) = load_grid(written(tmp_path, text))
    assert mine.name == "faiss-flat"
    assert type(mine.method) is METHODS["faiss-flat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[scann]", r"\[scann\]: expected a method out of .*faiss-hnsw.*; got 'scann'"),
        ("[x]\nclass = 'no.such:Thing'", "expected a method at the import path 'no.such:Thing'"),
        ("[x]\nclass = 'benchmark.grids:Path'", "expected a subclass of Method"),
        ("[x]\nclass = 3", "expected class to be an import path; got 3"),
        ("[faiss-hnsw]\nm = 3", "no parameter 'm'; it has links, build_effort"),
        ("[exact]\nm = 3", "no parameter 'm'; it has none"),
        ("[faiss-hnsw]\nlinks = ['a']", "can't be used: .*int"),
        ("[faiss-hnsw]\nlinks = 1", "can't be used: .*>= 2.*links"),
        ("[faiss-hnsw]\nlinks = []", "at least one value for links"),
        ("[faiss-hnsw]\nspaces = ['l3']", "a space out of l2, cosine, ip; got 'l3'"),
        ("[ball-tree]\nspaces = ['ip']", "ball-tree has no space ip; it has cosine, l2"),
        ("[faiss-hnsw]\nefforts = ['k2']", "expected an effort like 64.*got 'k2'"),
        ("[faiss-hnsw]\nefforts = [-1]", "got -1"),
        ("[faiss-hnsw]\nefforts = [true]", "got True"),
        ("[faiss-hnsw]\nquick = 1", "expected quick to be a table; got 1"),
        ("[faiss-hnsw.quick]\nlinks = 0", "can't be used"),
        ("faiss-hnsw = 3", r"expected a table \[METHOD\]; got faiss-hnsw = 3"),
        ("[faiss-hnsw", "isn't TOML"),
        ("", "has no methods: nothing to measure"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        load_grid(written(tmp_path, text))


def test_a_missing_grid_and_one_without_quick_tables_say_so(tmp_path):
    with pytest.raises(MissingFile, match="expected a grid file at"):
        load_grid(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no quick tables"):
        load_grid(written(tmp_path, "[annoy]"), quick=True)
