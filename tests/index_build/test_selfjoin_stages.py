"""The self-join's tasks one by one, without a cluster."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_build import found, own_disk, plan, stages
from index_build.segments import open_segments
from index_build.selfjoin import knn_matrix
from index_build.work import Work
from nearfield.errors import DamagedArtefact
from tests.index_build.builds import (
    K,
    N,
    cut_small,
    hard_vectors,
    planned,
)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    cut_small(monkeypatch)


class TestStages:
    """The stages one by one, without a cluster."""

    @pytest.fixture
    def work(self, tmp_path):
        vectors = hard_vectors("manifold")
        np.save(tmp_path / "vectors.npy", vectors)
        sizes = plan.sizes_for(N, 16, K)
        work = Work(
            directory=str(tmp_path / "0"), parts=str(tmp_path / "parts"),
            vectors=str(tmp_path / "vectors.npy"), fingerprint="f", n=N, k=K, space="l2",
            recall=0.95, seed=0, sizes=sizes,
        )  # fmt: skip
        return work, knn_matrix(vectors, K)

    def run(self, work, function, count):
        for number in range(count):
            function(work, number, threads=1)

    def assert_lists(self, work, matrix):
        tables = [rows.table() for rows in found.final_rows(work)]
        for name in ("neighbours", "distances"):
            lists = np.concatenate([getattr(table, name) for table in tables])
            np.testing.assert_array_equal(lists, getattr(matrix, name))

    @pytest.mark.parametrize("shards", [1, 2, 23, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_any_number_of_shards_gives_the_same(self, work, shards):
        work, matrix = replace(work[0], sizes=replace(work[0].sizes, shards=shards)), work[1]
        planned(work)
        cells = work.plan().facts["cells"]
        # more shards than cells: some have none, others a single one
        shards = min(shards, cells + 2)
        work = replace(work, sizes=replace(work.sizes, shards=shards))
        planned(work)
        for function, count in (
            (stages.block_task, len(work.blocks())),
            (stages.limits_task, shards),
            (found.lists_task, shards),
            (found.merged_task, shards),
        ):
            self.run(work, function, count)
        self.assert_lists(work, matrix)

    def test_a_host_without_the_vectors_trains_the_same_cells(self, work, monkeypatch):
        work, _ = work
        stages.cells_task(work, 0, threads=1)
        near = work.path("cells").read_bytes()
        stages.training_task(work, 0, threads=1)
        monkeypatch.setattr(stages, "at_hand", lambda _: False)
        monkeypatch.setattr(Work, "mapped", None)
        stages.cells_task(work, 0, threads=1)
        assert work.path("cells").read_bytes() == near

    @pytest.mark.parametrize("lost", ["gone", "flipped", "another's"])
    def test_what_a_lost_host_had_found_is_found_again(self, work, lost):
        work, matrix = work
        planned(work)
        self.run(work, stages.block_task, len(work.blocks()))
        self.run(work, stages.limits_task, work.sizes.shards)
        self.run(work, found.lists_task, work.sizes.shards)
        own = own_disk.own_path(work, found.OWN, 1)
        if lost == "gone":
            own.unlink()
        elif lost == "flipped":
            content = bytearray(own.read_bytes())
            content[1_000] ^= 1
            own.write_bytes(content)
        else:
            own.write_bytes(own_disk.own_path(work, found.OWN, 0).read_bytes())
        self.run(work, found.merged_task, work.sizes.shards)
        self.assert_lists(work, matrix)

    def test_a_repeated_task_changes_no_byte(self, work):
        work, _ = work
        planned(work)
        kinds = (
            ("plan", stages.plan_task, 1),
            ("block", stages.block_task, len(work.blocks())),
            ("limits", stages.limits_task, work.sizes.shards),
            ("lists", found.lists_task, work.sizes.shards),
            ("merged", found.merged_task, work.sizes.shards),
        )
        for kind, function, count in kinds:
            self.run(work, function, count)
            before = [work.path(kind, number).read_bytes() for number in range(count)]
            self.run(work, function, count)
            assert [work.path(kind, number).read_bytes() for number in range(count)] == before

    def test_a_task_reads_only_its_shard_where_blocks_carry_the_vectors(self, work):
        work, matrix = work
        work = replace(work, sizes=replace(work.sizes, held=False))
        planned(work)
        self.run(work, stages.block_task, len(work.blocks()))
        self.run(work, stages.limits_task, work.sizes.shards)
        Path(work.vectors).unlink()
        self.run(work, found.lists_task, work.sizes.shards)
        blocks = [open_segments(work.path("block", b)) for b in range(len(work.blocks()))]
        homes = [b.read(2 * s, "points") for s in range(work.sizes.shards) for b in blocks]
        assert np.sort(np.concatenate(homes)).tolist() == list(range(N))
        self.run(work, found.merged_task, work.sizes.shards)
        self.assert_lists(work, matrix)

    def test_blocks_carry_no_vectors_where_every_host_has_them_all(self, work):
        work, _ = work
        planned(work)
        self.run(work, stages.block_task, len(work.blocks()))
        blocks = [open_segments(work.path("block", b)) for b in range(len(work.blocks()))]
        assert not any(name == "vectors" for block in blocks for _, name in block.entries)
        counted = np.zeros(work.sizes.shards, np.int64)
        for block in blocks:
            for segment, name in block.entries:
                if name == "points":
                    counted[segment // 2] += len(block.read(segment, name))
        assert stages.shard_sizes(work).tolist() == counted.tolist()

    def test_a_broken_file_of_an_earlier_stage_is_named(self, work):
        work, _ = work
        planned(work)
        self.run(work, stages.block_task, len(work.blocks()))
        block = work.path("block", 1)
        content = bytearray(block.read_bytes())
        content[1_000] ^= 1
        block.write_bytes(content)
        with pytest.raises(DamagedArtefact, match=r"block-00001: .* fails its checksum"):
            self.run(work, stages.limits_task, work.sizes.shards)
