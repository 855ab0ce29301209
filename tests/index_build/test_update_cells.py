"""What is kept beside a run for its next update."""

from dataclasses import replace

import numpy as np
import pytest

from index_build.update.cells import drift, read_cells, write_cells
from index_build.update.update import (
    prepared_cells,
    sampled_recall,
)
from tests.index_build.update_case import (
    applied,
    base_of,
    names,
    points,
    truth,
    updated,
    write_set,
)


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
