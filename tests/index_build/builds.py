"""Vectors that are hard to join, and builds of their lists, for whatever way of joining."""

import numpy as np
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from index_build import plan, stages
from index_build.build import build_lists
from nearfield.run import RunConfig
from nearfield.vectorset import Geometry, write_vector_set

N, K = 6_000, 10


def vector_set(path, vectors, space="l2"):
    recordings = pa.table({"recording_id": np.arange(len(vectors))})
    return write_vector_set(path, vectors, recordings, Geometry(space=space))


def config_of(opened, k=K):
    return RunConfig(
        vectors=str(opened.path), vectors_fingerprint=opened.fingerprint, n=opened.n, d=opened.d,
        space=opened.geometry.space, k=k, recall=0.95, method="selfjoin", seed=0,
    )  # fmt: skip


def built_lists(built):
    """With what is kept beyond k, where something is."""
    first, neighbours, distances = zip(*built.blocks(reserve=True), strict=True)
    assert list(first) == np.cumsum([0, *map(len, neighbours)])[:-1].tolist()
    return np.concatenate(neighbours), np.concatenate(distances)


def assert_same(built, found):
    for one, other in zip(built_lists(built), (found.neighbours, found.distances), strict=True):
        np.testing.assert_array_equal(one, other)


def hard_vectors(name):
    vectors = manifold(N, 16)
    random = np.random.default_rng(0)
    if name == "40% duplicates":
        vectors[: 2 * N // 5] = vectors[random.integers(0, N, 2 * N // 5)]
    elif name == "zero rows":
        vectors[random.choice(N, N // 3, replace=False)] = 0
    elif name == "small islands":
        vectors = np.repeat(random.normal(size=(N // 6, 8)), 6, axis=0).astype(np.float32)
        vectors += random.normal(scale=1e-3, size=vectors.shape).astype(np.float32)
    elif name == "no cells":
        vectors = random.normal(size=(N, 48)).astype(np.float32)
    elif name == "one giant cluster":
        vectors[: 6 * N // 10] = 3 + 1e-4 * vectors[: 6 * N // 10]
    elif name == "heavy tails":
        vectors *= random.pareto(0.7, (N, 1)).astype(np.float32) + 1
    elif name == "a third equal":
        vectors[random.random(N) < 1 / 3] = vectors[0]
    return vectors


def rebuilt(finished, client):
    """Build again what `finished` (run, vector set, lists) holds: the lists are the same."""
    run, opened, before = finished
    built = build_lists(run, opened, client)
    for one, other in zip(built_lists(built), before, strict=True):
        np.testing.assert_array_equal(one, other)
    return built


def planned(work):
    """The plan of a join by distances, and what it is made of."""
    stages.truth_task(work, 0, threads=1)
    if stages.first_cells(work):
        stages.cells_task(work, 0, threads=1)
    stages.plan_task(work, 0, threads=1)


def cut_small(monkeypatch):
    """About five shards, seven with a reserve; seven blocks and four parts."""
    monkeypatch.setattr(plan, "SHARD_BYTES", 600_000)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1_000 * 16 * 4)
    monkeypatch.setattr(plan, "PART_ROWS", 1_700)
