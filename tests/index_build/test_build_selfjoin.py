"""The self-join on a real Dask cluster: bit for bit what one process gives, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.datasets.manifold import manifold
from index_build import found, joint, plan, whole
from index_build.build import build_lists, check_config
from index_build.estimate import estimate_build
from index_build.plan import RESERVE
from index_build.selfjoin import knn_matrix
from index_build.whole import fits_one_task
from nearfield.cluster import ClusterOptions, connected
from nearfield.errors import InputRejected, UsageError
from nearfield.run import create_run
from tests.index_build.builds import (
    K,
    N,
    assert_same,
    built_lists,
    config_of,
    cut_small,
    hard_vectors,
    rebuilt,
    vector_set,
)
from tests.index_build.test_selfjoin_hard import chroma


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    cut_small(monkeypatch)


HARD = (
    "manifold", "40% duplicates", "no cells",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("zero rows", "one giant cluster", "heavy tails", "a third equal")
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_workers_give_what_one_process_gives(tmp_path, client, name):
    check_build(hard_vectors(name), tmp_path, client)


@pytest.mark.slow
def test_vectors_of_1_024_numbers(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 10_000_000)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 2_000 * 1_024 * 4)
    check_build(manifold(N, 1_024), tmp_path, client)


@pytest.mark.parametrize("k", [1, 1_000])
def test_one_neighbour_and_a_thousand(tmp_path, client, k):
    check_build(hard_vectors("manifold"), tmp_path, client, k)


def check_build(vectors, tmp_path, client, k=K):
    opened = vector_set(tmp_path / "vectors", vectors)
    built = build_lists(create_run(tmp_path / "run", config_of(opened, k)), opened, client)
    found = knn_matrix(vectors, k + RESERVE)
    assert_same(built, found)
    assert built.recall_estimate == pytest.approx(found.report.recall, abs=1e-6)
    assert built.recall_estimate >= 0.95
    assert built.plan.parts >= 2


@pytest.mark.long
def test_a_thousand_neighbours_out_of_cells(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 512 << 20)
    check_build(manifold(100_000, 8), tmp_path, client, 1_000)


@pytest.mark.long
def test_chroma_frames_with_67_000_zero_rows(tmp_path, client, monkeypatch, real_data):
    monkeypatch.setattr(plan, "SHARD_BYTES", 64 << 20)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 4 << 20)
    monkeypatch.setattr(plan, "PART_ROWS", 65_536)
    check_build(chroma(real_data), tmp_path, client, 100)


def test_one_recording_is_no_matrix(tmp_path):
    opened = vector_set(tmp_path / "vectors", np.ones((1, 3), np.float32))
    with pytest.raises(InputRejected, match="at least 2"):
        check_config(config_of(opened))


def test_unit_vectors_of_cosine_are_joined_alike(tmp_path, client):
    vectors = hard_vectors("manifold")
    opened = vector_set(tmp_path / "vectors", vectors, "cosine")
    built = build_lists(create_run(tmp_path / "run", config_of(opened)), opened, client)
    assert_same(built, knn_matrix(vectors, K + RESERVE, space="cosine"))


@pytest.mark.slow
def test_one_worker_gives_what_two_give(tmp_path, client):
    opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
    two = build_lists(create_run(tmp_path / "two", config_of(opened)), opened, client)
    with connected(ClusterOptions(workers=1)) as single:
        one = build_lists(create_run(tmp_path / "one", config_of(opened)), opened, single)
    for left, right in zip(built_lists(one), built_lists(two), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.long
def test_many_rows_in_many_shards_give_what_one_process_gives(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 32 << 20)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 4 << 20)
    monkeypatch.setattr(plan, "PART_ROWS", 30_000)
    vectors = manifold(200_000, 48)
    opened = vector_set(tmp_path / "vectors", vectors)
    built = build_lists(create_run(tmp_path / "run", config_of(opened, 50)), opened, client)
    assert_same(built, knn_matrix(vectors, 50 + RESERVE))


def test_few_rows_are_cut_for_several_hosts_too_but_not_into_crumbs(monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 512 << 20)
    assert [plan.sizes_for(n, 93, 100).shards for n in (1, 16_384, 75_000, 300_000)] == [1, 2, 8, 8]
    assert plan.sizes_for(4_000_000, 93, 100).shards == 27


class TestOneTask:
    """On one machine, where memory allows it, one task with all threads makes all parts."""

    @pytest.mark.parametrize(
        ("name", "space"),
        [
            ("40% duplicates", "l2"),
            ("manifold", "cosine"),
            pytest.param("a third equal", "ip", marks=pytest.mark.slow),
        ],
    )
    def test_it_gives_what_the_stages_give(self, tmp_path, client, name, space):
        vectors = hard_vectors(name)
        opened = vector_set(tmp_path / "vectors", vectors, space)
        config = config_of(opened)
        one = build_lists(create_run(tmp_path / "1", config), opened, client, one_task=True)
        assert one.parts == 1
        kept = 0 if space == "ip" else RESERVE
        assert_same(one, knn_matrix(vectors, K + kept, space=space))
        stages = build_lists(create_run(tmp_path / "2", config), opened, client)
        assert stages.parts > 10
        assert stages.recall_estimate == pytest.approx(one.recall_estimate, abs=1e-6)
        for left, right in zip(built_lists(one), built_lists(stages), strict=True):
            np.testing.assert_array_equal(left, right)

    @pytest.mark.parametrize("damage", ["nothing", "flipped", "gone", "unfinished"])
    def test_it_is_made_again_unless_it_is_whole(self, tmp_path, client, damage):
        opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
        run = create_run(tmp_path / "run", config_of(opened))
        before = built_lists(build_lists(run, opened, client, one_task=True))
        part = run.path / "parts" / "0-00002"
        if damage == "flipped":
            content = bytearray(part.read_bytes())
            content[len(content) // 2] ^= 1
            part.write_bytes(content)
        elif damage == "gone":
            part.unlink()
        elif damage == "unfinished":
            (run.path / "shards" / "0" / "whole-00000").unlink()
        again = build_lists(run, opened, client, one_task=True)
        assert again.kept == (damage == "nothing")
        for left, right in zip(built_lists(again), before, strict=True):
            np.testing.assert_array_equal(left, right)

    def test_it_needs_room_for_all(self, monkeypatch):
        monkeypatch.setattr(whole, "MEMORY_LIMIT", 8 << 30)
        assert fits_one_task(1_000_000, 128, 100)
        assert not fits_one_task(3_000_000, 128, 100)
        monkeypatch.setattr(whole, "MEMORY_LIMIT", 24 << 30)
        assert fits_one_task(1_200_000, 1_024, 1)
        # fewer training rows than shards would use
        assert not fits_one_task(2_000_000, 1_024, 1)


def test_the_estimate_counts_the_workers(tmp_path):
    opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
    found = estimate_build(config_of(opened), opened, workers=3)
    assert found.workers == 3
    assert found.parts == plan.sizes_for(N, 16, K + RESERVE).shards
    assert found.seconds > 0
    with pytest.raises(UsageError):
        estimate_build(config_of(opened), opened, workers=0)


def test_the_estimate_of_the_disk_is_what_the_run_holds_at_most(tmp_path, client, monkeypatch):
    opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
    run, held = create_run(tmp_path / "run", config_of(opened)), []
    removed = joint._Way._remove

    def weighed(way, *kinds):
        # a stage's files are removed when the next one's are there: the most is just before
        held.append(sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file()))
        removed(way, *kinds)

    monkeypatch.setattr(joint._Way, "_remove", weighed)
    build_lists(run, opened, client)
    foretold = estimate_build(config_of(opened), opened, workers=2).disk_bytes
    assert 0.65 * foretold < max(held) <= foretold


class TestFaults:
    """A lost, repeated or broken piece changes nothing."""

    @pytest.fixture
    def finished(self, tmp_path, client):
        opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
        run = create_run(tmp_path / "run", config_of(opened))
        return run, opened, built_lists(build_lists(run, opened, client))

    def test_what_is_finished_is_kept(self, finished, client):
        again = rebuilt(finished, client)
        # the plan and seven shards: what they were made from is gone, but for the cells
        assert (again.kept, again.parts) == (8, 8)
        left = {path.name[:-6] for path in (finished[0].path / "shards" / "0").iterdir()}
        assert left == {"homes", "lists", "merged", "plan"}

    def test_a_merge_is_resumed_without_what_its_host_had(self, tmp_path, client, monkeypatch):
        monkeypatch.setattr(joint._Way, "_remove", lambda *_: None)
        opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
        run = create_run(tmp_path / "run", config_of(opened))
        before = built_lists(build_lists(run, opened, client))
        for name in ("merged-00001", "roaming-00001", "block-00000"):
            (run.path / "shards" / "0" / name).unlink()
        again = build_lists(run, opened, client)
        assert again.parts - again.kept == 2
        for left, right in zip(built_lists(again), before, strict=True):
            np.testing.assert_array_equal(left, right)

    def test_lists_of_another_width_are_made_again(self, tmp_path, client, monkeypatch):
        opened = vector_set(tmp_path / "vectors", hard_vectors("manifold"))
        run = create_run(tmp_path / "run", config_of(opened))
        with monkeypatch.context() as earlier:
            earlier.setattr(plan, "RESERVE", 0)
            assert built_lists(build_lists(run, opened, client))[0].shape == (N, K)
        again = build_lists(run, opened, client)
        assert again.kept == 0
        assert built_lists(again)[0].shape == (N, K + RESERVE)

    @pytest.mark.parametrize("kind", found.FINAL)
    @pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
    def test_a_damaged_file_is_made_again(self, finished, client, damage, kind):
        part = finished[0].path / "shards" / "0" / f"{kind}-00002"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        damaged = {"truncated": content[: len(content) // 2], "flipped": content, "gone": b""}
        part.write_bytes(damaged[damage])
        if damage == "gone":
            part.unlink()
        assert rebuilt(finished, client).kept == (7 if kind == "merged" else 8)


def test_lists_too_short_in_their_cells_are_filled_by_a_sweep(tmp_path, client):
    vectors = hard_vectors("small islands")
    opened = vector_set(tmp_path / "vectors", vectors)
    built = build_lists(create_run(tmp_path / "run", config_of(opened)), opened, client)
    neighbours, _ = built_lists(built)
    assert (neighbours >= 0).all()
    assert_same(built, knn_matrix(vectors, K + RESERVE))


PROGRAM = """
import sys
from index_build import plan
from index_build.build import build_lists, check_config
from index_build.estimate import estimate_build
from nearfield.cluster import ClusterOptions, connected
from nearfield.run import open_run
from nearfield.vectorset import open_vector_set
from pathlib import Path
plan.SHARD_BYTES, plan.BLOCK_BYTES, plan.PART_ROWS = 600_000, 64_000, 1_700
if __name__ == "__main__":
    with connected(ClusterOptions(workers=1)) as client:
        build_lists(open_run(Path(sys.argv[1])), open_vector_set(Path(sys.argv[2])), client)
"""


@pytest.mark.slow
def test_a_killed_driver_is_resumed_from_its_files(tmp_path, client):
    vectors = hard_vectors("manifold")
    opened = vector_set(tmp_path / "vectors", vectors)
    run = create_run(tmp_path / "run", config_of(opened))
    (tmp_path / "program.py").write_text(PROGRAM)
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(run.path), str(opened.path)],
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list((run.path / "shards" / "0").glob("lists-*")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    built = build_lists(run, opened, client)
    assert built.kept >= 2
    assert_same(built, knn_matrix(vectors, K + RESERVE))


@pytest.mark.slow
def test_a_killed_worker_costs_only_a_retry(tmp_path):
    vectors = hard_vectors("manifold")
    opened = vector_set(tmp_path / "vectors", vectors)
    run = create_run(tmp_path / "run", config_of(opened))
    with connected(ClusterOptions(workers=2)) as client:
        client.run(_die_in_the_second_round, str(tmp_path / "mark"))
        built = build_lists(run, opened, client)
    assert (tmp_path / "mark").exists()
    assert_same(built, knn_matrix(vectors, K + RESERVE))


def _die_in_the_second_round(mark):
    join = found.join_shard

    def deadly(*arguments, **options):
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return join(*arguments, **options)

    found.join_shard = deadly
