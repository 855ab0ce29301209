"""Runs of made-up vectors, what an update makes of them, and the same by brute force."""

import numpy as np
import pyarrow as pa

from index_build.update.apply import merged_blocks
from index_build.update.base import Base
from index_build.update.change import changes
from index_build.update.update import (
    computed_delta,
    ends_after,
    facts_after,
    prepared_cells,
)
from index_build.update.vectors import patch_of
from nearfield.run import RunConfig
from nearfield.vectorset import Geometry, write_vector_set
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
