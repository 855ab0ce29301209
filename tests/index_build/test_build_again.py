"""A build that goes on in the other way: by one task after workers, by workers after one task."""

import numpy as np
import pytest

from index_build import plan
from index_build.build import build_lists
from nearfield.run import create_run
from tests.index_build.builds import N, built_lists, config_of, hard_vectors, vector_set


def vectors_of(space):
    """By products with cells, by distances without: the ways whose parts one task makes alike."""
    if space == "ip":
        vectors = hard_vectors("manifold")
        return vectors - vectors[::7].mean(axis=0)
    return hard_vectors("no cells")


@pytest.mark.parametrize("space", ["ip", "l2"])
@pytest.mark.parametrize("alone_first", [True, False])
def test_what_one_way_made_the_other_takes_up(tmp_path, client, monkeypatch, space, alone_first):
    monkeypatch.setattr(plan, "SHARD_BYTES", 400_000)
    monkeypatch.setattr(plan, "PART_ROWS", 1_700)
    opened = vector_set(tmp_path / "vectors", vectors_of(space), space)
    run = create_run(tmp_path / "run", config_of(opened))
    first = build_lists(run, opened, client, one_task=alone_first)
    before = built_lists(first)
    # as after a full disk, on fewer parts
    (run.path / "parts" / "0-00001").unlink()
    for alone in (not alone_first, alone_first):
        built = build_lists(run, opened, client, one_task=alone)
        assert built.recall_estimate == pytest.approx(first.recall_estimate, abs=1e-6)
        for one, other in zip(built_lists(built), before, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(before[0]) == N


def test_parts_of_one_task_are_kept_by_workers(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "PART_ROWS", 1_700)
    opened = vector_set(tmp_path / "vectors", vectors_of("l2"))
    run = create_run(tmp_path / "run", config_of(opened))
    build_lists(run, opened, client, one_task=True)
    built = build_lists(run, opened, client)
    # the plan, against whose sample they are judged, was not there
    assert (built.parts - built.kept, built.parts) == (1, 5)
