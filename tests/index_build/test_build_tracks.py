"""Circles and lines through the build on a real Dask cluster: sorted, exact, in bounded memory."""

from dataclasses import replace

import numpy as np
import pytest

from index_build import plan
from index_build.build import build_lists
from index_build.estimate import estimate_build
from index_build.selfjoin import knn_matrix
from nearfield.run import create_run
from tests.index_build.brute import nearest
from tests.index_build.builds import assert_same, built_lists, config_of, vector_set
from tests.index_build.test_selfjoin_circular import circle

N = 5_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(plan, "PART_ROWS", 900)
    monkeypatch.setattr(plan, "EXACT_UP_TO", 500)


def track(name):
    random = np.random.default_rng(0)
    if name == "bpm":
        return circle(np.log2(random.normal(120, 25, N).clip(40, 220)) % 1)
    if name == "keys and duplicates":
        return circle(np.where(random.random(N) < 0.4, random.integers(0, 12, N) / 12,
                               random.random(N)))  # fmt: skip
    return random.normal(size=(N, 1)).round(2 if name == "rounded line" else 7).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    [pytest.param("bpm", marks=pytest.mark.slow), "keys and duplicates", "line", "rounded line"],
)
def test_tracks_are_sorted_and_exact(tmp_path, client, name):
    vectors = track(name)
    opened = vector_set(tmp_path / "vectors", vectors)
    run = create_run(tmp_path / "run", replace(config_of(opened), method="auto", recall=1.0))
    built = build_lists(run, opened, client)
    if name != "rounded line":
        assert built.plan.sorted
        assert built.parts == 1 + -(-built.plan.n // 900)
    neighbours, distances = built_lists(built)
    true = nearest(vectors, 10, "l2")
    np.testing.assert_array_equal(neighbours, true[0])
    np.testing.assert_array_equal(distances, true[1])
    again = build_lists(run, opened, client)
    assert again.kept == again.parts


def test_two_numbers_under_cosine_are_a_circle(tmp_path, client):
    vectors = np.random.default_rng(2).normal(size=(N, 2)).astype(np.float32)
    opened = vector_set(tmp_path / "vectors", vectors, "cosine")
    built = build_lists(create_run(tmp_path / "run", config_of(opened)), opened, client)
    assert built.plan.sorted
    assert_same(built, knn_matrix(vectors, 10, space="cosine"))


def test_a_third_of_a_million_equal_rows(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "PART_ROWS", 65_536)
    vectors = circle(np.random.default_rng(3).random(340_000))
    vectors[:330_000] = vectors[0]
    opened = vector_set(tmp_path / "vectors", vectors)
    built = build_lists(create_run(tmp_path / "run", config_of(opened, 5)), opened, client)
    assert built.plan.sorted
    neighbours, distances = built_lists(built)
    assert neighbours[7].tolist() == [0, 1, 2, 3, 4]
    assert not distances[:330_000].any()
    assert (neighbours != np.arange(len(vectors))[:, None]).all()


def test_the_estimate_sorts_too(tmp_path):
    opened = vector_set(tmp_path / "vectors", track("bpm"))
    found = estimate_build(replace(config_of(opened), method="auto"), opened)
    assert found.reason == "on a circle or line: sorted, exact"
    assert found.parts == -(-N // 900)
    # no shard of vectors, but a few numbers per row
    assert found.memory_bytes < (400 << 20)
