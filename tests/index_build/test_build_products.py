"""The build by inner products on a real Dask cluster: bit for bit what one process gives."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_build import plan, product_stages
from index_build.build import build_lists
from index_build.estimate import estimate_build
from index_build.segments import open_segments
from index_build.selfjoin import knn_matrix, probing
from index_build.work import Work, final_part, judged_recall, part_judged
from nearfield.cluster import ClusterOptions, connected
from nearfield.errors import DamagedArtefact
from nearfield.run import create_run
from tests.index_build.brute import nearest
from tests.index_build.builds import (
    K,
    N,
    assert_same,
    built_lists,
    config_of,
    hard_vectors,
    rebuilt,
    vector_set,
)

SHARDS = 5
STAGES = ("plan", "block", "begun", "found", "part")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """About five shards, and six ranges of rows."""
    monkeypatch.setattr(plan, "SHARD_BYTES", 400_000)
    monkeypatch.setattr(plan, "PART_ROWS", 1_000)


def product_vectors(name):
    """Around their mean, where directions differ; or as they are."""
    if name == "hubs":
        return (hard_vectors("heavy tails") - 0.5).astype(np.float32)
    if name == "a few long rows":
        vectors = hard_vectors("manifold") - hard_vectors("manifold").mean(axis=0)
        return (vectors * np.random.default_rng(0).pareto(0.5, (N, 1))).astype(np.float32)
    if name == "two numbers":
        return np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32)
    if name == "few different":
        return np.random.default_rng(2).integers(0, 2, (N, 3)).astype(np.float32)
    vectors = hard_vectors(name)
    return vectors - vectors[::7].mean(axis=0)


def config(opened, k=K):
    return replace(config_of(opened, k), space="ip")


def build(tmp_path, client, vectors, k=K, name="run"):
    opened = vector_set(tmp_path / "vectors", vectors, "ip")
    return build_lists(create_run(tmp_path / name, config(opened, k)), opened, client)


@pytest.mark.parametrize(
    "name",
    [
        "manifold", *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "no cells", "a third equal", "hubs", "a few long rows", "40% duplicates",
                "few different", "two numbers",
            )
        ),
    ],
)  # fmt: skip
def test_workers_give_what_one_process_gives(tmp_path, client, name):
    vectors = product_vectors(name)
    built = build(tmp_path, client, vectors)
    found = knn_matrix(vectors, K, space="ip")
    assert_same(built, found)
    assert built.recall_estimate == pytest.approx(found.report.recall, abs=1e-6)
    distances = built_lists(built)[1]
    truth = nearest(vectors, K, "ip")[1]
    kth = truth[:, -1:]
    assert (distances <= kth + 1e-5 * np.abs(kth)).mean() >= 0.94


@pytest.mark.slow
def test_every_other_row_is_a_neighbour_where_k_is_larger(tmp_path, client):
    vectors = np.repeat(product_vectors("manifold")[:50], 100, axis=0)
    built = build(tmp_path, client, vectors, 6_000)
    neighbours, distances = built_lists(built)
    assert neighbours.shape == (5_000, 4_999)
    np.testing.assert_allclose(distances, nearest(vectors, 4_999, "ip")[1], rtol=1e-4, atol=1e-6)
    assert all(len(set(row)) == 4_999 for row in neighbours[::977].tolist())


@pytest.mark.slow
def test_one_worker_gives_what_two_give(tmp_path, client):
    vectors = product_vectors("manifold")
    two = build(tmp_path, client, vectors, name="two")
    with connected(ClusterOptions(workers=1)) as single:
        one = build(tmp_path, single, vectors, name="one")
    for left, right in zip(built_lists(one), built_lists(two), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.long
def test_many_rows_in_many_shards_give_what_one_process_gives(tmp_path, client, monkeypatch):
    from benchmark.datasets.manifold import manifold

    monkeypatch.setattr(plan, "SHARD_BYTES", 32 << 20)
    monkeypatch.setattr(plan, "PART_ROWS", 30_000)
    vectors = manifold(200_000, 48) - np.float32(0.1)
    assert_same(build(tmp_path, client, vectors, 50), knn_matrix(vectors, 50, space="ip"))


def test_the_method_is_chosen_by_the_number_of_rows(tmp_path, monkeypatch):
    opened = vector_set(tmp_path / "vectors", product_vectors("manifold"), "ip")
    auto = replace(config(opened), method="auto")
    assert plan.plan_for(auto, N).method == "exact"
    assert not plan.merges_equals(auto)
    monkeypatch.setattr(plan, "EXACT_UP_TO", 5_000)
    assert plan.plan_for(auto, N).method == "selfjoin"
    assert plan.merges_equals(auto)
    found = estimate_build(auto, opened, workers=2)
    assert (found.method, found.parts) == ("selfjoin", plan.sizes_for(N, 16, K).shards)
    assert found.seconds > 0
    assert found.memory_bytes > 0


class TestFaults:
    """A lost, repeated or broken piece changes nothing."""

    @pytest.fixture
    def finished(self, tmp_path, client):
        opened = vector_set(tmp_path / "vectors", product_vectors("manifold"), "ip")
        run = create_run(tmp_path / "run", config(opened))
        return run, opened, built_lists(build_lists(run, opened, client))

    def test_what_is_finished_is_kept(self, finished, client):
        again = rebuilt(finished, client)
        assert (again.kept, again.parts) == (7, 7)
        left = sorted(path.name for path in (finished[0].path / "shards" / "0").iterdir())
        assert left == ["plan-00000"]

    @pytest.mark.parametrize("damage", ["flipped", "gone"])
    def test_a_damaged_part_is_made_again(self, finished, client, damage):
        part = finished[0].path / "parts" / "0-00002"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        if damage == "gone":
            part.unlink()
        # plan and parts, and the two rounds whose files were removed and are made again
        assert rebuilt(finished, client).kept == 6


class TestStages:
    """The stages one by one, without a cluster."""

    @pytest.fixture
    def work(self, tmp_path):
        vectors = product_vectors("manifold")
        np.save(tmp_path / "vectors.npy", vectors)
        return Work(
            directory=str(tmp_path / "0"), parts=str(tmp_path / "parts"),
            vectors=str(tmp_path / "vectors.npy"), fingerprint="f", n=N, k=K, space="ip",
            recall=0.95, seed=0, sizes=plan.Sizes(SHARDS, 1_000, 1_000),
        )  # fmt: skip

    def run(self, work, *kinds):
        counts = dict.fromkeys(STAGES, work.sizes.shards)
        counts |= {"plan": 1, "block": len(work.blocks()), "part": len(work.part_starts())}
        for kind in kinds:
            for number in range(counts[kind]):
                getattr(product_stages, f"{kind}_task")(work, number, threads=1)
        return counts

    @pytest.mark.parametrize("shards", [1, 2, 23, pytest.param(500, marks=pytest.mark.slow)])
    def test_any_number_of_shards_gives_the_same(self, work, shards):
        work = replace(work, sizes=replace(work.sizes, shards=shards))
        self.run(work, "plan")
        # more shards than cells: some have none, others a single one
        shards = min(shards, int(work.plan().facts["cells"]) + 2)
        work = replace(work, sizes=replace(work.sizes, shards=shards))
        self.run(work, *STAGES)
        tables = [final_part(work, i).table() for i in range(len(work.part_starts()))]
        found = knn_matrix(np.load(work.vectors), K, space="ip")
        assert found.report.method == "cells"
        for name in ("neighbours", "distances"):
            made = np.concatenate([getattr(table, name) for table in tables])
            np.testing.assert_array_equal(made, getattr(found, name))

    def test_hubs_alone_are_asked_where_they_are_enough(self, work, monkeypatch):
        monkeypatch.setattr(probing, "HUBS", (64,))
        vectors = product_vectors("a few long rows")
        np.save(work.vectors, vectors)
        self.run(work, "plan")
        assert (work.plan().facts["cells"], work.plan().facts["hubs"]) == (0, 64)
        for number in range(len(work.part_starts())):
            product_stages.sweep_task(work, number, threads=1)
        numbers = range(len(work.part_starts()))
        found = knn_matrix(vectors, K, space="ip")
        assert found.report.chosen["hubs"] == 64
        np.testing.assert_array_equal(
            np.concatenate([final_part(work, i).table().neighbours for i in numbers]),
            found.neighbours,
        )
        recall = judged_recall(part_judged(work, number) for number in numbers)
        assert recall == pytest.approx(found.report.recall, abs=1e-6)

    def test_a_repeated_task_changes_no_byte(self, work):
        for kind in STAGES[:-1]:
            count = self.run(work, kind)[kind]
            before = [work.path(kind, number).read_bytes() for number in range(count)]
            self.run(work, kind)
            assert [work.path(kind, number).read_bytes() for number in range(count)] == before

    def test_a_task_reads_only_its_shard(self, work):
        self.run(work, "plan", "block")
        Path(work.vectors).unlink()
        self.run(work, "begun", "found")
        blocks = [open_segments(work.path("block", b)) for b in range(len(work.blocks()))]
        for side, expected in ((0, N - int(work.plan().facts["hubs"])), (1, N)):
            points = [b.read(3 * s + side, "points") for s in range(SHARDS) for b in blocks]
            assert len(np.unique(np.concatenate(points))) == expected
            assert sum(map(len, points)) == expected

    def test_no_shard_holds_more_than_twice_its_share_of_the_vectors(self, work):
        self.run(work, "plan", "block")
        blocks = [open_segments(work.path("block", b)) for b in range(len(work.blocks()))]
        largest = max(sum(len(b.read(3 * s, "points")) for b in blocks) for s in range(SHARDS))
        assert largest <= 2 * N / SHARDS + 2 * N / work.plan().facts["cells"]

    def test_a_broken_file_of_an_earlier_stage_is_named(self, work):
        self.run(work, "plan", "block")
        block = work.path("block", 1)
        content = bytearray(block.read_bytes())
        content[1_000] ^= 1
        block.write_bytes(content)
        with pytest.raises(DamagedArtefact, match=r"block-00001: .* fails its checksum"):
            self.run(work, "begun")


@pytest.mark.slow
def test_a_killed_worker_costs_only_a_retry(tmp_path):
    vectors = product_vectors("manifold")
    with connected(ClusterOptions(workers=2)) as client:
        client.run(_die_once, str(tmp_path / "mark"))
        built = build(tmp_path, client, vectors)
    assert (tmp_path / "mark").exists()
    assert_same(built, knn_matrix(vectors, K, space="ip"))


def _die_once(mark):
    found = product_stages.found_for_guests

    def deadly(*arguments, **options):
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found(*arguments, **options)

    product_stages.found_for_guests = deadly
