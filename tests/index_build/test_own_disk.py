"""What a host keeps on a disk of its own where the folder of the run is another machine's."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_build import found, own_disk, plan, stages
from index_build.selfjoin import knn_matrix
from index_build.work import Work
from nearfield import locations
from nearfield.errors import DiskFull
from nearfield.traffic import counted
from tests.index_build.builds import K, N, hard_vectors, planned

COUNT = 3


@pytest.fixture
def far(tmp_path, monkeypatch):
    """Work whose folder counts as another machine's, and the cache of two hosts."""
    hosts = [tmp_path / "cache" / name for name in ("here", "there")]
    monkeypatch.setenv("NEARFIELD_CACHE", str(hosts[0]))
    monkeypatch.setattr(own_disk, "is_remote", lambda path: tmp_path / "far" in path.parents)
    vectors = hard_vectors("manifold")
    np.save(tmp_path / "vectors.npy", vectors)
    return hosts, Work(
        directory=str(tmp_path / "far" / "0"), parts=str(tmp_path / "far" / "parts"),
        vectors=str(tmp_path / "vectors.npy"), fingerprint="f", n=N, k=K, space="l2",
        recall=0.95, seed=0, sizes=replace(plan.sizes_for(N, 16, K), shards=COUNT),
    )  # fmt: skip


def lists_by_two_hosts(hosts, work, monkeypatch):
    planned(work)
    for number in range(len(work.blocks())):
        stages.block_task(work, number, threads=1)
    for shard in range(COUNT):
        stages.limits_task(work, shard, threads=1)
    for shard in range(COUNT):
        monkeypatch.setenv("NEARFIELD_CACHE", str(hosts[shard % 2]))
        found.lists_task(work, shard, threads=1)


def kept_by(host, work, monkeypatch):
    monkeypatch.setenv("NEARFIELD_CACHE", str(host))
    return own_disk.numbers_kept(work, found.OWN, COUNT)


def test_each_host_has_what_it_found_and_the_folder_has_none(far, monkeypatch):
    hosts, work = far
    lists_by_two_hosts(hosts, work, monkeypatch)
    assert [kept_by(host, work, monkeypatch) for host in hosts] == [[0, 2], [1]]
    assert not list(Path(work.directory).glob(f"{found.OWN}-*"))
    other = replace(work, fingerprint="other")
    assert kept_by(hosts[0], other, monkeypatch) == []
    own_disk.forget(work, found.OWN)
    assert [kept_by(host, work, monkeypatch) for host in hosts] == [[], [1]]


def test_a_host_that_has_not_found_it_gives_the_same_lists(far, monkeypatch):
    """As when the one that has is gone: every shard is settled by a host without its lists."""
    hosts, work = far
    lists_by_two_hosts(hosts, work, monkeypatch)
    for shard in range(COUNT):
        monkeypatch.setenv("NEARFIELD_CACHE", str(hosts[1 - shard % 2]))
        found.merged_task(work, shard, threads=1)
    tables = [rows.table() for rows in found.final_rows(work)]
    matrix = knn_matrix(np.load(work.vectors), K)
    for name in ("neighbours", "distances"):
        made = np.concatenate([getattr(table, name) for table in tables])
        np.testing.assert_array_equal(made, getattr(matrix, name))


def test_a_full_disk_of_its_own_is_no_matter(far, monkeypatch):
    hosts, work = far
    written = own_disk.write_segments

    def full(path, *arguments, **options):
        if hosts[0] in path.parents:
            raise DiskFull("no room")
        written(path, *arguments, **options)

    monkeypatch.setattr(own_disk, "write_segments", full)
    with counted() as traffic:
        own_disk.keep(work, found.OWN, 1, [(0, {"points": np.arange(5)})])
    assert traffic.written == 0
    with own_disk.kept(work, found.OWN, 1) as own:
        assert own.read(0, "points").tolist() == [0, 1, 2, 3, 4]
    assert kept_by(hosts[0], work, monkeypatch) == []


def test_files_of_abandoned_builds_go_when_others_are_written(far, monkeypatch):
    hosts, work = far
    monkeypatch.setenv("NEARFIELD_CACHE", str(hosts[0]))
    abandoned = replace(work, fingerprint="abandoned")
    own_disk.keep(abandoned, found.OWN, 0, [(0, {"a": np.zeros(3)})])
    folder = own_disk.own_path(work, found.OWN, 0).parent
    (folder / ".left.partial-0123456789ab").touch()
    (folder / ".young.partial-0123456789ab").touch()
    young = own_disk.own_path(replace(work, fingerprint="young"), found.OWN, 0)
    young.touch()
    for left in (own_disk.own_path(abandoned, found.OWN, 0), folder / ".left.partial-0123456789ab"):
        os.utime(left, (time.time() - locations.UNUSED_S - 9,) * 2)
    own_disk.keep(work, found.OWN, 0, [(0, {"a": np.zeros(3)})])
    assert {path.name for path in folder.iterdir()} == {
        young.name, ".young.partial-0123456789ab", own_disk.own_path(work, found.OWN, 0).name,
    }  # fmt: skip
