"""The lists after an update against brute force over what is left: nothing is approximate here."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from index_build.plan import RESERVE
from index_build.update.apply import lists_at, merged_blocks
from index_build.update.base import Base
from index_build.update.cells import Ends, drift, read_cells, single, write_cells
from index_build.update.change import changes
from index_build.update.known import Known, nothing_known
from index_build.update.refill import joined_lists, kept_members
from index_build.update.rows import Rows
from index_build.update.truth import kth_distances
from index_build.update.update import (
    computed_delta,
    ends_after,
    facts_after,
    prepared_cells,
    sampled_recall,
)
from index_build.update.vectors import patch_in, patch_of, write_updated_set
from nearfield.errors import InputRejected, QualityGate, UsageError
from nearfield.ingest import ingest
from nearfield.run import RunConfig
from nearfield.space import Block
from nearfield.vectorset import Geometry, open_vector_set, write_vector_set
from tests.index_build.brute import all_distances

SPACES = ("l2", "cosine", "ip")


def points(n, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 3)) @ rng.standard_normal((3, d)) + 0.3).astype(np.float32)


def write_set(path, vectors, ids, *, space="l2", removed=None, facts=None):
    recordings = pa.table({"recording_id": ids, "title": [f"title of {i}" for i in ids]})
    return write_vector_set(path, vectors, recordings, Geometry(space), facts, removed=removed)


def names(first, stop):
    return [f"id-{i}" for i in range(first, stop)]


def truth(vectors, removed, k, space):
    """Lists by brute force, of live rows among live rows; -1 and infinity for removed ones."""
    found = all_distances(vectors, space).astype(np.float32)
    found[:, removed] = np.inf
    rows = np.broadcast_to(np.arange(len(vectors)), found.shape)
    order = np.lexsort((rows, found), axis=1)[:, :k].astype(np.int32)
    far = np.take_along_axis(found, order, 1)
    order[removed], far[removed] = -1, np.inf
    return order, far


def base_of(tmp_path, vectors, *, k=10, space="l2", exact=True, removed=(), name="old"):
    removed = np.array(removed, np.int32)
    made = write_set(tmp_path / name, vectors, names(0, len(vectors)), space=space, removed=removed)
    config = RunConfig(str(made.path), made.fingerprint, made.n, made.d, space, k, 0.95, "auto", 0)
    near, far = truth(vectors, removed, config.columns, space)
    return Base(config, made, near, far, exact, 1.0, 2)


def updated(base, add=None, remove=()):
    change = changes(base.vectors, add, list(remove))
    cells = prepared_cells(base)
    delta = computed_delta(base, change, cells, patch_of(change, base.vectors, add))
    near, far, _ = applied(base, cells, delta)
    return change, delta, near, far


def applied(base, cells, delta):
    """The lists after an update, and what is kept for the next."""
    ends = ends_after(cells, delta, seed=0)
    blocks = ends.of(merged_blocks(cells.known(base.neighbours, base.distances), delta))
    near, far = (np.concatenate(it) for it in zip(*(block[1:] for block in blocks), strict=True))
    return near, far, ends.cells(cells.centres, facts_after(cells, delta))


def check(near, far, vectors, removed, k, space):
    expected, distances = truth(vectors, removed, k, space)
    np.testing.assert_allclose(far, distances, rtol=3e-6, atol=3e-6)
    # rows may differ where brute force rounds otherwise: at most where distances tie
    differ = near != expected
    assert differ.mean() < 0.01
    assert not np.isin(near, removed).any()


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


@pytest.mark.long
class TestCells:
    def test_a_run_with_cells_keeps_its_recall(self, tmp_path):
        rng = np.random.default_rng(1)
        vectors = np.tanh(rng.standard_normal((6_600, 4)) @ rng.standard_normal((4, 16))).astype(
            np.float32
        )
        base = base_of(tmp_path, vectors[:6_000], k=10, exact=False)
        base = replace(base, estimate=0.97)
        cells = prepared_cells(base)
        assert len(cells.centres) > 10
        add = write_set(tmp_path / "new", vectors[6_000:], names(6_000, 6_600))
        _, delta, near, far = updated(base, add, names(0, 100))
        _, distances = truth(vectors, np.arange(100), 10, "l2")
        live = slice(100, None)
        recall = (far[live] <= distances[live, -1:] * (1 + 1e-5)).mean()
        assert recall > 0.985
        assert (near[live] >= 100).all()
        assert (np.diff(far[live], axis=1) >= 0).all()
        assert sampled_recall(base, cells, delta, seed=0) > 0.97

    def test_what_is_kept_for_the_next_update_comes_back_and_belongs_to_one_matrix(self, tmp_path):
        base = base_of(tmp_path, points(300))
        cells = prepared_cells(base)
        write_cells(tmp_path / "cells", cells, fingerprint="a" * 16)
        again = read_cells(tmp_path / "cells", fingerprint="a" * 16)
        assert again is not None
        np.testing.assert_array_equal(again.limits, base.distances[:, -1])
        assert read_cells(tmp_path / "cells", fingerprint="b" * 16) is None
        (tmp_path / "cells" / "home.npy").write_bytes(b"else")
        assert read_cells(tmp_path / "cells", fingerprint="a" * 16) is None

    def test_cells_follow_an_update_and_say_when_a_rebuild_is_due(self, tmp_path):
        vectors = points(500)
        base = base_of(tmp_path, vectors[:300])
        add = write_set(tmp_path / "new", vectors[300:], names(300, 500))
        _, delta, near, far = updated(base, add, names(0, 120))
        _, _, cells = applied(base, prepared_cells(base), delta)
        np.testing.assert_array_equal(cells.listed, near[cells.sample])
        assert (cells.limits[120:] >= far[120:, -1]).all()
        assert (cells.sample >= 120).all()
        assert (cells.home[:120] == -1).all()
        assert (cells.home[120:] >= 0).all()
        found = drift(cells)
        assert (found.live, found.removed, found.added) == (380, 120, 200)
        assert [text.split(" ")[0] for text in found.due] == ["200", "120"]
        assert drift(prepared_cells(base)).due == ()

    def test_changed_recordings_make_a_rebuild_due_as_new_ones_do(self, tmp_path):
        vectors = points(300)
        base = base_of(tmp_path, vectors)
        add = write_set(tmp_path / "new", vectors[:60] + np.float32(1), names(0, 60))
        _, delta, *_ = updated(base, add)
        once = applied(base, prepared_cells(base), delta)[2]
        assert drift(once).due == ()
        twice = applied(base, once, delta)[2]
        assert [text.split(" ")[0] for text in drift(twice).due] == ["120"]


class TestGate:
    @pytest.mark.parametrize("space", SPACES)
    def test_recall_is_measured_against_all_that_is_left(self, tmp_path, space):
        vectors = points(420)
        base = base_of(tmp_path, vectors[:400], space=space)
        add = write_set(tmp_path / "new", vectors[400:], names(400, 420), space=space)
        change = changes(base.vectors, add, names(0, 30))
        new = np.ascontiguousarray(vectors[400:])
        rows = Rows(base.vectors.vectors, change.rows, new, space)
        live = np.arange(420) >= 30
        asked = np.array([30, 77, 399, 400, 419], np.int32)
        _, far = truth(vectors, np.arange(30), 10, space)
        # lists that have missed some say farther than need be
        _, farther = truth(vectors, np.arange(30), 14, space)
        for found in (far, farther[:, 4:]):
            kth = kth_distances(rows, asked, live, found[asked], threads=2)
            np.testing.assert_allclose(kth, far[asked, -1], rtol=3e-6, atol=3e-6)
        nearer = np.where(far < 0, far * 2, far / 2)[asked]
        assert (kth_distances(rows, asked, live, nearer, threads=1) == -np.inf).all()

    def test_lists_below_what_the_run_had_are_refused(self, tmp_path):
        vectors = points(330)
        base = base_of(tmp_path, vectors[:300])
        add = write_set(tmp_path / "new", vectors[300:], names(300, 330))
        _, delta, _, _ = updated(base, add)
        wrong = replace(delta, distances=np.asarray(delta.distances) * 3)
        with pytest.raises(QualityGate, match="reach a recall of"):
            sampled_recall(base, prepared_cells(base), wrong, seed=0)

    def test_single_lists_are_those_of_the_blocks(self, tmp_path):
        vectors = points(330)
        base = base_of(tmp_path, vectors[:300])
        add = write_set(tmp_path / "new", vectors[300:], names(300, 330))
        _, delta, near, far = updated(base, add, ["id-4"])
        rows = np.array([0, 4, 5, 299, 300, 329], np.int32)
        known = prepared_cells(base).known(base.neighbours, base.distances)
        one, one_far = lists_at(known, delta, rows)
        np.testing.assert_array_equal(one, near[rows])
        np.testing.assert_array_equal(one_far, far[rows])


class TestRefused:
    @pytest.fixture
    def old(self, tmp_path):
        return write_set(tmp_path / "old", points(20), names(0, 20))

    def test_vectors_of_another_width(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3, d=5), names(30, 33))
        with pytest.raises(InputRejected, match="vectors of 6 numbers under l2"):
            changes(old, add, [])

    def test_vectors_of_another_space(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3), names(30, 33), space="cosine")
        with pytest.raises(InputRejected, match="has 6 under cosine"):
            changes(old, add, [])

    def test_statistics_that_are_not_the_sets_own(self, tmp_path, old):
        other = Geometry("l2", (Block("mfccs", 0, 6),), {"mean": [1.0]})
        add = write_vector_set(
            tmp_path / "new", points(3), pa.table({"recording_id": names(30, 33)}), other
        )
        with pytest.raises(InputRejected, match="other blocks and statistics"):
            changes(old, add, [])

    def test_unknown_ids_to_remove_and_those_removed_before(self, tmp_path, old):
        with pytest.raises(InputRejected, match=r"2 of 3 ids .*first: 'who'"):
            changes(old, None, ["id-1", "who", "what"])
        again = write_set(
            tmp_path / "less", points(20), names(0, 20), removed=np.array([1], np.int32)
        )
        with pytest.raises(InputRejected, match=r"1 of 1 ids .*first: 'id-1'"):
            changes(again, None, ["id-1"])

    def test_an_id_named_twice_or_for_both(self, tmp_path, old):
        with pytest.raises(InputRejected, match="'id-1' is named twice"):
            changes(old, None, ["id-1", "id-1"])
        add = write_set(tmp_path / "new", points(1, seed=3), ["id-1"])
        with pytest.raises(InputRejected, match=r"added and removed at once .*'id-1'"):
            changes(old, add, ["id-1"])

    def test_row_numbers_where_the_set_has_ids(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3), names(30, 33), facts={"ids": "row numbers"})
        with pytest.raises(UsageError, match="has row numbers in place of ids"):
            changes(old, add, [])

    def test_numbers_that_lost_their_zeros(self, tmp_path):
        old = write_set(tmp_path / "padded", points(2), ["000002", "140"])
        add = write_set(tmp_path / "new", points(3), [140, 2, 7])
        with pytest.raises(UsageError, match=r"1 of the new ids .*2 and '000002'"):
            changes(old, add, [])

    def test_text_where_the_run_has_numbers(self, tmp_path):
        old = write_set(tmp_path / "numbered", points(2), [2, 140])
        add = write_set(tmp_path / "new", points(3), ["140", "7", "0007"])
        with pytest.raises(UsageError, match="'0007' isn't one as it is printed"):
            changes(old, add, [])


@pytest.mark.parametrize(
    ("known", "given"), [(["000002", "140"], [7, 140]), ([2, 140], ["7", "140"])]
)
def test_ids_take_the_form_that_those_of_the_run_have(tmp_path, known, given):
    base = base_of(tmp_path, points(40), k=3)
    old = write_set(tmp_path / "known", points(40), [*known, *range(200, 238)] if known[0] == 2
                    else [*known, *names(2, 40)])  # fmt: skip
    base = replace(base, vectors=old)
    add = write_set(tmp_path / "new", points(2, seed=8), given)
    change, delta, *_ = updated(base, add)
    assert (change.added, change.changed) == (1, 1)
    made = write_updated_set(tmp_path / "made", old, patch_in(delta), update="u")
    assert made.ids.type == old.ids.type
    assert [made.ids[row].as_py() for row in (0, 1, 40)] == [*known, type(known[0])(7)]


def test_numbered_recordings_are_numbered_on(tmp_path):
    facts = {"ids": "row numbers"}
    old = write_set(tmp_path / "old", points(20), list(range(20)), facts=facts)
    add = write_set(tmp_path / "new", points(3), [0, 1, 2], facts=facts)
    change = changes(old, add, [])
    assert change.ids.to_pylist() == [20, 21, 22]
    assert change.rows.tolist() == [20, 21, 22]


def test_removed_rows_survive_the_file(tmp_path):
    made = write_set(tmp_path / "set", points(5), names(0, 5), removed=np.array([2], np.int32))
    assert open_vector_set(made.path).removed.tolist() == [2]
    plain = write_set(tmp_path / "plain", points(5), names(0, 5))
    assert made.fingerprint != plain.fingerprint
    assert plain.removed.tolist() == []


def test_a_set_with_removed_rows_is_extended_by_an_update_only(tmp_path):
    made = write_set(tmp_path / "set", points(5), names(0, 5), removed=np.array([2], np.int32))
    np.save(tmp_path / "more.npy", points(3))
    with pytest.raises(UsageError, match="1 removed recordings"):
        ingest([tmp_path / "more.npy"], tmp_path / "out", extend=made.path)
