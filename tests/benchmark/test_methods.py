"""One contract over every method: asked recall reached, the row itself never, true distances."""

import numpy as np
import pytest

from benchmark.methods import METHODS, Asked, method_named, neighbours_of_all
from benchmark.methods.base import tie_aware_recall
from nearfield.errors import InputRejected, UsageError
from nearfield.space import pair_distances, prepared
from tests.benchmark.method_cases import PARAMETERS
from tests.index_build.brute import nearest

CASES = [
    pytest.param(name, space, id=f"{name}-{space}")
    for name, method in METHODS.items()
    for space in sorted(method.spaces)
    if name != "pynndescent" and not method.unavailable()  # that one compiles for minutes
]


def clustered(n, d=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 3)) @ rng.standard_normal((3, d))).astype(np.float32) + 0.5


@pytest.mark.parametrize(("name", "space"), CASES)
class TestContract:
    def test_lists_reach_the_asked_recall(self, name, space):
        vectors = prepared(clustered(800), space)
        asked = Asked(k=10, space=space, recall=0.95, threads=2, seed=0)
        neighbours, distances = neighbours_of_all(
            method_named(name, PARAMETERS.get(name)), vectors, asked
        )

        assert neighbours.shape == distances.shape == (800, 10)
        assert not (neighbours == np.arange(800)[:, None]).any()
        assert all(len(set(row)) == 10 for row in neighbours.tolist())
        assert (np.diff(distances, axis=1) >= 0).all()
        np.testing.assert_array_max_ulp(
            distances, pair_distances(vectors[:, None], vectors[neighbours], space), maxulp=1
        )
        _, truth = nearest(vectors, 10, space)
        assert tie_aware_recall(distances, truth) >= 0.93  # 200 sampled rows decide the effort

    def test_with_too_few_vectors_all_others_are_listed(self, name, space):
        vectors = prepared(clustered(4), space)
        asked = Asked(k=10, space=space, recall=1.0, threads=1, seed=0)
        neighbours, _ = neighbours_of_all(method_named(name), vectors, asked)
        assert [sorted(row) for row in neighbours.tolist()] == [
            [j for j in range(4) if j != i] for i in range(4)
        ]


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"expected a method out of faiss-hnsw, .*; got 'hnsw'"):
        method_named("hnsw")


def test_a_space_that_a_method_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(METHODS["faiss-ivf"], "spaces", frozenset({"l2"}))
    with pytest.raises(InputRejected, match="faiss-ivf has no space ip; it has l2"):
        neighbours_of_all(method_named("faiss-ivf"), clustered(10), Asked(3, "ip", 0.9, 1, 0))


def test_recall_counts_ties_and_takes_negative_distances():
    truth = np.array([[-3.0, -2.0]], np.float32)
    assert tie_aware_recall(np.array([[-3.0, -2.0]], np.float32), truth) == 1.0
    assert tie_aware_recall(np.array([[-3.0, -1.0]], np.float32), truth) == 0.5
