"""The lists after an update against brute force over what is left: nothing is approximate here."""

from dataclasses import replace

import numpy as np
import pytest

from index_build.plan import RESERVE
from index_build.update.cells import Ends, single
from index_build.update.change import changes
from index_build.update.known import Known, nothing_known
from index_build.update.refill import joined_lists, kept_members
from index_build.update.update import (
    computed_delta,
    prepared_cells,
)
from index_build.update.vectors import patch_in, patch_of, write_updated_set
from nearfield.errors import InputRejected
from tests.index_build.brute import all_distances
from tests.index_build.update_case import (
    SPACES,
    applied,
    base_of,
    check,
    names,
    points,
    truth,
    updated,
    write_set,
)


@pytest.mark.parametrize("space", SPACES)
class TestAnExactRunStaysExact:
    def test_new_recordings_get_lists_and_enter_every_list_that_they_belong_to(
        self, tmp_path, space
    ):
        everything = points(330)
        base = base_of(tmp_path, everything[:300], space=space)
        add = write_set(tmp_path / "new", everything[300:], names(300, 330), space=space)
        change, delta, near, far = updated(base, add)
        check(near, far, everything, [], 10, space)
        assert (change.added, change.changed, len(change.gone)) == (30, 0, 0)
        # lists of recordings that no new one names changed too
        named = np.unique(near[300:])
        assert len(np.setdiff1d(np.unique(delta.entries.rows), named)) > 0

    def test_removed_recordings_vanish_and_lists_are_filled_up(self, tmp_path, space):
        vectors = points(300)
        base = base_of(tmp_path, vectors, space=space)
        gone = np.unique([7, 9, *base.neighbours[0][:2]])
        _, delta, near, far = updated(base, None, [f"id-{row}" for row in gone])
        check(near, far, vectors, gone, 10, space)
        assert delta.facts["refilled"] > 0

    def test_a_changed_vector_counts_as_removed_and_added_at_its_row(self, tmp_path, space):
        vectors = points(300)
        base = base_of(tmp_path, vectors, space=space)
        changed = vectors.copy()
        changed[[5, 17]] = points(2, seed=9)
        ids = ["id-5", "id-17", "id-20"]
        add = write_set(tmp_path / "new", changed[[5, 17, 20]], ids, space=space)
        change, _, near, far = updated(base, add)
        check(near, far, changed, [], 10, space)
        assert (change.added, change.changed, change.unchanged) == (0, 2, 1)

    def test_all_at_once_and_what_was_removed_comes_back_at_its_row(self, tmp_path, space):
        vectors = points(320)
        base = base_of(tmp_path, vectors[:300], space=space, removed=[3, 100])
        add = write_set(
            tmp_path / "new",
            np.concatenate([vectors[300:], vectors[100:101]]),
            [*names(300, 320), "id-100"],
            space=space,
        )
        change, _, near, far = updated(base, add, ["id-40"])
        check(near, far, vectors, [3, 40], 10, space)
        assert change.returned == 1
        assert change.removed.tolist() == [3, 40]


@pytest.mark.parametrize("space", SPACES)
def test_many_updates_in_a_row_stay_exact_and_search_few_lists(tmp_path, space):
    everything = points(900)
    rng = np.random.default_rng(2)
    base = base_of(tmp_path, everything[:300], space=space)
    cells, vectors = prepared_cells(base), everything[:300].copy()
    searched, lost = [], []
    for step in range(8):
        n = len(vectors)
        live = np.setdiff1d(np.arange(n), base.vectors.removed)
        chosen = rng.choice(live, 12, replace=False)
        gone, changed = chosen[:6], np.sort(chosen[6:])
        fresh = everything[300 + 20 * step :][:14]
        vectors = np.concatenate([vectors, fresh[6:]])
        vectors[changed] = fresh[:6]
        rows = [*changed, *range(n, n + 8)]
        ids = [f"id-{row}" for row in rows]
        add = write_set(tmp_path / f"new{step}", vectors[rows], ids, space=space)
        change = changes(base.vectors, add, [f"id-{row}" for row in gone])
        delta = computed_delta(base, change, cells, patch_of(change, base.vectors, add))
        near, far, cells = applied(base, cells, delta)
        made = write_updated_set(
            tmp_path / f"set{step}", base.vectors, patch_in(delta), update=f"{step}"
        )
        check(near, far, vectors, made.removed, 10, space)
        config = replace(base.config, n=made.n)
        base = replace(base, config=config, vectors=made, neighbours=near, distances=far)
        searched.append(delta.facts["refilled"])
        lost.append(delta.facts["lost"])
    assert sum(lost) > 400
    # at first there is no reserve; what enters lists fills it
    assert sum(searched[2:]) < 0.3 * sum(lost[2:])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("n", [300, 15])
def test_a_reserve_that_the_build_left_makes_up_for_what_is_removed(tmp_path, space, n):
    vectors = points(n)
    vectors[2:4] = vectors[1]
    base = base_of(tmp_path, vectors, space=space)
    cells = prepared_cells(base)
    ends = Ends(cells.home, base.config.columns, seed=0)
    wide = truth(vectors, [], min(10 + RESERVE, n - 1), space)
    for block, first in zip(ends.of([(0, *wide)]), (base.neighbours, base.distances), strict=False):
        np.testing.assert_array_equal(block[1], first)
    cells = ends.cells(cells.centres, cells.facts)
    gone = [2, 7, 9]
    change = changes(base.vectors, None, [f"id-{row}" for row in gone])
    delta = computed_delta(base, change, cells, patch_of(change, base.vectors, None))
    near, far, after = applied(base, cells, delta)
    check(near, far, vectors, gone, 10, space)
    assert delta.facts["lost"] > 10
    assert delta.facts["refilled"] == 0
    # nothing is known beyond what the build saw
    assert (after.limits[10:] <= cells.limits[10:]).all()


class TestSmallRuns:
    def test_lists_grow_where_the_run_had_fewer_than_k_others(self, tmp_path):
        vectors = points(14)
        base = base_of(tmp_path, vectors[:6], k=10)
        add = write_set(tmp_path / "new", vectors[6:], names(6, 14))
        _, _, near, far = updated(base, add)
        check(near, far, vectors, [], 10, "l2")

    def test_too_few_recordings_left_are_refused(self, tmp_path):
        base = base_of(tmp_path, points(12), k=10)
        with pytest.raises(InputRejected, match="10 recordings would be left, too few"):
            updated(base, None, ["id-1", "id-2"])

    def test_many_equal_vectors(self, tmp_path):
        vectors = points(200)
        vectors[50:120] = vectors[50]
        base = base_of(tmp_path, vectors[:150])
        vectors[160:170] = vectors[50]
        add = write_set(tmp_path / "new", vectors[150:], names(150, 200))
        _, _, near, far = updated(base, add, ["id-60"])
        check_tied(near, far, vectors, [60], 10)


def check_tied(near, far, vectors, removed, k):
    """Distances as by brute force; rows may differ among equals."""
    _, distances = truth(vectors, removed, k, "l2")
    np.testing.assert_allclose(far, distances, rtol=3e-6, atol=2e-6)
    assert not np.isin(near, removed).any()


@pytest.mark.parametrize("space", ["l2", "cosine"])
@pytest.mark.slow
def test_any_number_of_threads_finds_the_same_and_nothing_that_is_not_so(tmp_path, space):
    vectors = points(2_200, d=16)
    base = base_of(tmp_path, vectors[:2_000], space=space, exact=False)
    cells = prepared_cells(base)
    assert len(cells.centres) > 10
    add = write_set(tmp_path / "new", vectors[2_000:], names(2_000, 2_200), space=space)
    change = changes(base.vectors, add, names(0, 20))
    patch = patch_of(change, base.vectors, add)
    deltas = [computed_delta(replace(base, threads=it), change, cells, patch) for it in (1, 4)]
    for name in ("listed", "neighbours", "distances"):
        np.testing.assert_array_equal(*(getattr(it, name) for it in deltas))
    for name in ("rows", "neighbours", "distances"):
        np.testing.assert_array_equal(*(getattr(it.entries, name) for it in deltas))

    entries = deltas[0].entries
    far = all_distances(vectors, space).astype(np.float32)
    np.testing.assert_allclose(
        entries.distances, far[entries.rows, entries.neighbours], rtol=3e-6, atol=3e-6
    )
    assert (entries.distances <= base.distances[entries.rows, -1]).all()
    # all that belong there, but for the few whose cells don't meet
    away = np.isin(np.arange(2_000), deltas[0].listed) | (np.arange(2_000) < 20)
    due = (far[:2_000, 2_000:] < base.distances[:, -1:] * (1 - 1e-5)) & ~away[:, None]
    assert 0.95 * due.sum() < len(entries.rows) <= 1.001 * due.sum() + 5


@pytest.mark.parametrize("length", [1, 1_000])
def test_a_long_vector_spoils_no_other_list_of_products(tmp_path, length):
    vectors = points(1_100, d=16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[1_050] *= length
    base = base_of(tmp_path, vectors[:1_000], space="ip", exact=False)
    add = write_set(tmp_path / "new", vectors[1_000:], names(1_000, 1_100), space="ip")
    _, _, near, far = updated(base, add)
    expected, distances = truth(vectors, [], 10, "ip")
    np.testing.assert_allclose(far, distances, rtol=1e-5, atol=1e-5)
    assert (near != expected).mean() < 0.01


def test_what_a_list_still_has_stays_and_finds_take_their_places():
    away = np.zeros(20, bool)
    away[[3, 7]] = True
    old = np.array([[3, 9, 7, 4], [0, 1, 2, 3], [5, 4, 7, -1]], np.int32)
    old_far = np.array([[1, 2, 3, 4], [1, 1, 1, 1], [1, 2, 3, np.inf]], np.float32)
    rows = np.array([0, 2], np.int32)
    known = Known(old, old_far, *nothing_known(3, 0))
    kept = kept_members(known, rows, away, 4, threads=2)
    assert kept.neighbours.tolist() == [[9, 4, -1, -1], [5, 4, -1, -1]]
    assert kept.known.tolist() == [[4, 9, -1, -1], [4, 5, -1, -1]]
    assert kept.places.tolist() == [2, 2]
    # 7 comes back with another vector
    found = np.array([[11, 7, 12], [9, -1, -1]], np.int32)
    far = np.array([[3, 3.5, 5], [1.5, np.inf, np.inf]], np.float32)
    near, far = joined_lists(kept, (found, far), 4)
    assert near.tolist() == [[9, 11, 7, 4], [5, 9, 4, -1]]
    assert far.tolist() == [[2, 3, 3.5, 4], [1, 1.5, 2, np.inf]]


@pytest.mark.parametrize("space", ["l2", "cosine"])
def test_lists_are_filled_up_from_near_by_as_if_everything_had_been_looked_at(tmp_path, space):
    vectors = points(2_000, d=16)
    base = base_of(tmp_path, vectors, space=space, exact=False)
    centres, home = single(2_000, 16)
    cells = replace(prepared_cells(base), centres=centres, home=home)
    gone = np.arange(0, 2_000, 50)
    change = changes(base.vectors, None, [f"id-{row}" for row in gone])
    delta = computed_delta(base, change, cells, patch_of(change, base.vectors, None))
    expected, far = truth(vectors, gone, 10, space)
    np.testing.assert_allclose(delta.distances[:, :10], far[delta.listed], rtol=3e-6, atol=3e-6)
    assert (delta.neighbours[:, :10] != expected[delta.listed]).mean() < 0.001
