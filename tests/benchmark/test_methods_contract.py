"""One contract over every method and space: what is found, what is refused, edges of n and k."""

import numpy as np
import pytest

from benchmark.methods import METHODS, method_class, method_named
from benchmark.methods.base import tie_aware_recall
from nearfield.distances import list_distances, sort_lists
from nearfield.errors import InputRejected, UsageError
from nearfield.space import SPACES, pair_distances, prepared
from tests.benchmark.method_cases import (
    CASES,
    COMPILES,
    NAMES,
    SELFJOIN,
    K,
    N,
    asked,
    built,
    clustered,
    index_of,
    queries_of,
    vectors_of,
)


def recall_of(found, queries, vectors, space):
    """By brute force in float64; repeats are refused, and -1 before a row."""
    for row in found.tolist():
        there = [one for one in row if one >= 0]
        assert len(set(there)) == len(there)
        assert row == there + [-1] * (len(row) - len(there))
        assert all(one < len(vectors) for one in there)
    distances = sort_lists(found, list_distances(queries, vectors, found, space))[1]
    every = np.sort(pair_distances(queries[:, None], vectors[None], space), axis=1)
    return tie_aware_recall(distances, every[:, : found.shape[1]])


@pytest.mark.parametrize(("name", "space"), CASES)
class TestContract:
    def test_the_greatest_effort_finds_nearly_all(self, name, space):
        index = index_of(name, space)
        found = asked(index)
        assert found.dtype == np.int32
        assert found.shape == (50, K)
        assert recall_of(found, queries_of(space), vectors_of(space), space) >= 0.97
        efforts = index.efforts(K)
        assert list(efforts) == sorted(set(efforts))
        assert (len(efforts) == 1) or not METHODS[name].exact

    def test_one_query_one_thread_and_a_batch_agree(self, name, space):
        index, queries = index_of(name, space), queries_of(space)
        effort = index.efforts(K)[-1]
        together = asked(index)
        index.threads = 1
        alone = np.concatenate([index.search(queries[i : i + 1], K, effort) for i in range(5)])
        index.threads = 2
        np.testing.assert_array_equal(alone, together[:5])
        assert index.search(queries[:0], K, effort).shape == (0, K)

    def test_with_k_beyond_n_all_are_found_and_the_rest_is_empty(self, name, space):
        vectors = prepared(clustered(12), space)
        index = built(name, vectors, space)
        found = index.search(vectors, 15, index.efforts(15)[-1])
        assert [sorted(row[:12]) for row in found.tolist()] == [list(range(12))] * 12
        assert (found[:, 12:] == -1).all()

    def test_one_vector_is_an_index(self, name, space):
        vectors = prepared(clustered(1), space)
        index = built(name, vectors, space)
        found = index.search(vectors, 3, index.efforts(3)[0])
        assert found.tolist() == [[0, -1, -1]]

    def test_many_equal_vectors_are_found_like_others(self, name, space):
        rng = np.random.default_rng(5)
        vectors = clustered(N)
        copies = rng.choice(N, 2 * N // 5, replace=False)
        vectors[copies] = vectors[rng.choice(N // 10, len(copies))]
        vectors = prepared(vectors, space)
        index = built(name, vectors, space)
        found = index.search(vectors, K, index.efforts(K)[-1])
        assert recall_of(found, vectors, vectors, space) >= 0.9

    def test_a_clump_of_equal_vectors_leaves_lists_whole(self, name, space):
        vectors = clustered(N)
        vectors[: N // 2] = vectors[0]
        vectors = prepared(vectors, space)
        index = built(name, vectors, space)
        found = index.search(vectors, 400, index.efforts(400)[0])
        recall = recall_of(found, vectors, vectors, space)
        assert recall >= (0.97 if METHODS[name].exact else 0.0)  # graphs break up, and may


@pytest.mark.parametrize("name", NAMES)
class TestGates:
    def test_wrong_vectors_and_queries_are_refused(self, name):
        index, space = index_of(name, "l2"), "l2"
        good = queries_of(space)
        for wrong in (good[:, :5], good.astype(np.float64), np.asfortranarray(good), good[0]):
            with pytest.raises(InputRejected, match=r"expected queries float32 \[q, 12\]"):
                index.search(wrong, K, 10)
        method = method_named(name)
        broken = good.copy()
        broken[7, 3] = np.nan
        for wrong, message in (
            (broken, "row 7"),
            (good.astype(np.float64), "expected vectors float32"),
            (np.asfortranarray(good), "C order"),
            (good[:0], "expected vectors float32"),
        ):
            with pytest.raises(InputRejected, match=message):
                method.build(wrong, space, threads=1, seed=0)

    def test_a_space_that_it_lacks_is_refused(self, name):
        for space in set(SPACES) - METHODS[name].spaces:
            with pytest.raises(InputRejected, match=f"{name} has no space {space}; it has"):
                built(name, clustered(20), space)
        with pytest.raises(InputRejected, match=f"{name} has no space l3; it has"):
            built(name, clustered(20), "l3")

    def test_vectors_are_added_or_that_is_refused(self, name):
        space, more = "l2", queries_of("l2")
        index = built(name, vectors_of(space), space)
        if not index.method.adds:
            with pytest.raises(UsageError, match=f"{name} can't add vectors"):
                index.add(more)
            return
        with pytest.raises(InputRejected, match="12 dimensions; got 5"):
            index.add(np.ascontiguousarray(more[:, :5]))
        index.add(more)
        assert index.holds.n == N + len(more)
        found = index.search(more, 1, index.efforts(1)[-1])
        assert (found[:, 0] == np.arange(N, N + len(more))).mean() >= 0.95

    def test_it_says_what_it_is(self, name):
        method = method_named(name)
        if reason := method.unavailable():
            pytest.skip(reason)
        assert method == method_named(name, method.parameters)
        assert str(method).startswith(f"{name}(")
        assert type(method).name == name
        facts = method.built()
        assert facts.state == "ok"
        assert (method.effort == "") == method.exact


GRAPHS = [
    pytest.param(name, id=name, marks=[pytest.mark.long] if name == COMPILES else [])
    for name in (*(name for name, method in METHODS.items() if method.graphs), SELFJOIN)
]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("n", [1, 2, 40, 1_200])
def test_a_graph_holds_the_neighbours_of_all(name, n):
    method = method_class(name)()
    if reason := method.unavailable():
        pytest.skip(reason)
    vectors = clustered(n)
    found = method.all_neighbours(vectors, K, "l2", threads=2, seed=0)
    assert found.shape[0] == n
    own = np.arange(n)[:, None]
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], np.int32).reshape(n, -1)
    distances = pair_distances(vectors[:, None], vectors[others], "l2")
    truth = np.sort(distances, axis=1)[:, :K]
    listed = np.where(found == own, np.int32(-1), found)
    near = sort_lists(listed, list_distances(vectors, vectors, listed, "l2"))[1]
    assert near.shape[1] >= truth.shape[1]
    assert tie_aware_recall(near[:, : truth.shape[1]], truth) >= 0.95


def test_graphs_and_queries_are_refused_where_there_are_none():
    with pytest.raises(UsageError, match="annoy makes no graph by itself"):
        method_named("annoy").all_neighbours(clustered(20), 3, "l2", threads=1, seed=0)
    with pytest.raises(UsageError, match="selfjoin can't be queried"):
        method_named(SELFJOIN).build(clustered(20), "l2", threads=1, seed=0)


def test_codes_divide_the_dimensions():
    from benchmark.methods.faiss_ivfpq import code_width

    assert [code_width(d, 4) for d in (1, 13, 93, 128, 26)] == [1, 1, 3, 4, 2]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"m": 3}, "faiss-hnsw has no parameter 'm'; it has links, build_effort"),
        ({"links": "many"}, "a parameter of faiss-hnsw can't be used: Expected `int`"),
        ({"links": 1}, ">= 2"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        method_named("faiss-hnsw", parameters)


def test_methods_with_other_parameters_differ():
    fingerprints = {
        method_named("annoy").fingerprint,
        method_named("annoy", {"trees": 51}).fingerprint,
        method_named("faiss-flat").fingerprint,
        method_named("exact").fingerprint,
    }
    assert len(fingerprints) == 4
