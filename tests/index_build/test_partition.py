"""Cells with overlap: everyone has a home, the asked share of neighbours shares a cell."""

import numpy as np
import pytest

from index_build.partition import RATIOS, cell_centres, cell_members, overlap_for
from tests.index_build.brute import nearest


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 8)) * 3
    return (centres[rng.integers(0, 20, 3_000)] + rng.standard_normal((3_000, 8))).astype(
        np.float32
    )


def test_everyone_is_in_a_cell_and_without_overlap_in_one(vectors):
    centres = cell_centres(vectors, 6, seed=0)
    members = cell_members(vectors, centres, 1.0)
    assert sorted(np.concatenate(members)) == list(range(len(vectors)))


def test_members_ascend_and_grow_with_the_ratio(vectors):
    centres = cell_centres(vectors, 6, seed=0)
    narrow, wide = (cell_members(vectors, centres, ratio) for ratio in (1.1, 1.5))
    for few, many in zip(narrow, wide, strict=True):
        assert (np.diff(many) > 0).all()
        assert set(few) <= set(many)


@pytest.mark.parametrize("coverage", [0.9, 0.99])
def test_the_chosen_overlap_keeps_the_asked_share(vectors, coverage):
    centres = cell_centres(vectors, 6, seed=0)
    near, _ = nearest(vectors, 10, "l2")
    sample = np.arange(0, 3_000, 10)
    ratio, stated = overlap_for(
        coverage, centres, vectors[sample], [vectors[near[i]] for i in sample]
    )
    members = cell_members(vectors, centres, ratio)
    inside = np.zeros((len(vectors), len(members)), bool)
    for cell, rows in enumerate(members):
        inside[rows, cell] = True
    kept = np.mean([(inside[near[i]] & inside[i]).any(axis=1).mean() for i in sample])
    assert kept == pytest.approx(stated)
    assert kept >= coverage
    assert ratio in RATIOS


def test_the_same_seed_gives_the_same_centres(vectors):
    np.testing.assert_array_equal(
        cell_centres(vectors, 6, seed=3), cell_centres(vectors, 6, seed=3)
    )
