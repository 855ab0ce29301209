"""What gets into a choice: only what a build can do, and nothing that small samples flatter."""

import dataclasses
from itertools import product

import numpy as np
import pytest

from benchmark.candidates import Candidate, buildable, candidates_of
from benchmark.methods import METHODS, Asked, method_named
from benchmark.methods.spelled import method_spelled
from index_build.joining import is_join, joined
from index_build.plan import plan_for
from nearfield.errors import NearfieldError, UsageError
from nearfield.run import RunConfig
from tests.benchmark.test_choice import row
from tests.benchmark.test_methods import clustered


def planned(method, space):
    config = RunConfig(
        vectors="v", vectors_fingerprint="f", n=100_000, d=8, space=space, k=10, recall=0.95,
        method=method, seed=0,
    )  # fmt: skip
    return plan_for(config, 100_000)


def of_space(space, **more):
    return dataclasses.replace(row("annoy", 0.95, 10.0), space=space, **more)


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("method", [*METHODS, "selfjoin", "noting", "my.module:Class"])
def test_a_candidate_is_what_a_build_can_plan(method, space):
    try:
        planned(method, space)
    except NearfieldError:
        assert not buildable(method, space)
    else:
        assert buildable(method, space)


def test_no_candidate_is_a_library_under_inner_products_or_a_class_of_the_user():
    measured = [
        of_space("ip"),
        of_space("ip", method="selfjoin", build="recall=0.95", total_s=20.0, recall=0.97),
        of_space("ip", method="noting", total_s=1.0),
    ]
    assert [one.method for one in candidates_of(measured, 10_000)] == ["selfjoin"]
    by_distance = [dataclasses.replace(one, space="l2") for one in measured]
    assert [one.method for one in candidates_of(by_distance, 10_000)] == ["annoy", "selfjoin"]


def candidate(method, build="", search=""):
    return Candidate(method, 10, 0.9, 1.0, 1, 100, 1.0, build=build, search=search)


def test_lists_of_a_librarys_own_graph_are_built_by_it():
    graph = candidate("faiss-nndescent", "links=16,iterations=5")
    assert graph.way == "faiss-nndescent(links=16,iterations=5,graph=True)"
    queried = dataclasses.replace(row("faiss-nndescent", 0.9, 1.0), search="search_L=32")
    assert "graph" not in candidates_of([queried], 10_000)[0].way
    assert candidate("selfjoin", "recall=0.9").way == "selfjoin"
    assert candidate("faiss-flat").way == "faiss-flat"
    for one in (graph, candidate("pynndescent")):
        assert is_join(one.way)
        assert planned(one.way, "l2").method == one.way


def test_the_graph_that_was_measured_is_the_one_that_a_build_makes():
    vectors = clustered(3_000)
    asked = Asked(k=10, space="l2", recall=0.99, threads=1, seed=0)
    way = candidate("faiss-nndescent", "links=8,iterations=1").way
    neighbours, distances = joined(way, vectors, asked)
    method = method_named("faiss-nndescent", {"links": 8, "iterations": 1})
    graph = method.all_neighbours(vectors, 10, "l2", threads=1, seed=0)
    assert (neighbours == -1).sum() == 0
    listed = [set(row) for row in graph.tolist()]
    assert all(set(found) <= listed[place] for place, found in enumerate(neighbours.tolist()))
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("annoy(graph=True)", "annoy makes no graph by itself"),
        ("pynndescent(graph=1)", "expected graph=True or graph=False"),
        ("pynndescent(graphs=True)", "has no parameter 'graphs'"),
    ],
)
def test_a_graph_of_what_makes_none_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        method_spelled(text)


def test_what_was_measured_on_fewer_rows_than_its_method_is_left_out():
    ladder = [
        row("hnswlib", recall, seconds * (n / 10_000) ** 1.5, n=n, build="links=16", search=search,
            build_s=0.0, repetition_seconds=(seconds * (n / 10_000) ** 1.5,))
        for n, (recall, seconds, search) in product(
            (10_000, 100_000), ((0.95, 3.0, "ef=50"), (0.90, 2.0, "ef=20"))
        )
    ]  # fmt: skip
    flattered = row("hnswlib", 0.99, 3.1, n=10_000, build="links=32")
    other = row("annoy", 0.97, 5.0, n=10_000)
    found = candidates_of([*ladder, flattered, other], 1_000_000)
    assert {one.build for one in found if one.method == "hnswlib"} == {"links=16"}
    # of another k nothing larger was measured
    other_k = dataclasses.replace(flattered, k=100)
    assert other_k.build in {one.build for one in candidates_of([*ladder, other_k], 1_000_000)}


def test_one_size_is_taken_to_grow_as_the_worst_that_was_measured_at_several():
    def way(method, n, seconds, **more):
        return row(method, 0.95, seconds, n=n, build_s=0.0, repetition_seconds=(seconds,), **more)

    twice = [way("hnswlib", 10_000, 1.0), way("hnswlib", 100_000, 10**1.5)]
    exact = [way("faiss-flat", 10_000, 1.0), way("faiss-flat", 100_000, 300.0)]
    once = way("annoy", 10_000, 0.5)
    own = [way("annoy", 10_000, 1.0, k=100), way("annoy", 100_000, 10**1.2, k=100)]
    found = {one.method: one for one in candidates_of([*twice, *exact, once], 1_000_000)}
    assert found["annoy"].exponent == pytest.approx(1.5)
    assert found["annoy"].time_s == pytest.approx(0.5 * 100**1.5)
    first = candidates_of([*twice, once, *own], 1_000_000)
    assert next(one for one in first if one.method == "annoy").exponent == pytest.approx(1.2)
    assert candidates_of([once], 1_000_000)[0].exponent == 1
