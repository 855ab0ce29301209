"""What an updated run is let through by: recall against all that is left, on single lists."""

from dataclasses import replace

import numpy as np
import pytest

from index_build.update.apply import lists_at
from index_build.update.change import changes
from index_build.update.rows import Rows
from index_build.update.truth import kth_distances
from index_build.update.update import (
    prepared_cells,
    sampled_recall,
)
from nearfield.errors import QualityGate
from tests.index_build.update_case import (
    SPACES,
    base_of,
    names,
    points,
    truth,
    updated,
    write_set,
)


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
