"""The self-join's stages with their files in an object store, one by one, without a cluster."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.datasets.manifold import manifold
from index_build import found, plan, stages
from index_build.vector_file import send_vectors
from index_build.work import Work
from nearfield.errors import DamagedArtefact
from nearfield.locations import location
from tests.index_build.builds import planned

N, K = 3_000, 8


@pytest.fixture
def work(bucket, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 400_000)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1_000 * 16 * 4)
    monkeypatch.setattr(plan, "PART_ROWS", 1_100)
    vectors = manifold(N, 16)
    send_vectors(location(f"{bucket}/run/shards/vectors"), vectors, fingerprint="v")
    return vectors, Work(
        directory=f"{bucket}/run/shards/0", parts=f"{bucket}/run/parts",
        vectors=f"{bucket}/run/shards/vectors", fingerprint="f", n=N, k=K, space="l2",
        recall=0.95, seed=0, sizes=plan.sizes_for(N, 16, K),
    )  # fmt: skip


def run(work, function, count):
    for number in range(count):
        function(work, number, threads=1)


def lists_of(work):
    planned(work)
    assert work.plan().facts["cells"]
    run(work, stages.block_task, len(work.blocks()))
    run(work, stages.limits_task, work.sizes.shards)
    run(work, found.lists_task, work.sizes.shards)
    run(work, found.merged_task, work.sizes.shards)
    tables = [rows.table() for rows in found.final_rows(work)]
    return [
        np.concatenate([getattr(table, name) for table in tables])
        for name in ("neighbours", "distances")
    ]


@pytest.mark.slow
def test_they_give_what_local_files_give(work, tmp_path):
    vectors, work = work
    assert work.sizes.shards >= 3
    np.save(tmp_path / "vectors.npy", vectors)
    local = replace(
        work, directory=str(tmp_path / "0"), parts=str(tmp_path / "parts"),
        vectors=str(tmp_path / "vectors.npy"),
    )  # fmt: skip
    for one, other in zip(lists_of(work), lists_of(local), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_broken_object_of_an_earlier_stage_is_named(work):
    _, work = work
    planned(work)
    run(work, stages.block_task, len(work.blocks()))
    block = work.path("block", 1)
    content = bytearray(block.read_bytes())
    content[1_000] ^= 1
    block.write_bytes(bytes(content))
    with pytest.raises(DamagedArtefact, match=r"s3://.*block-00001: .* fails its checksum"):
        run(work, stages.limits_task, work.sizes.shards)
