"""`nearfield update`, `compare` and `compact` as a user runs them."""

import json
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.datasets.manifold import manifold
from index_build.update.update import prepared_cells
from nearfield import api
from nearfield.vectorset import Geometry, write_vector_set
from tests.cli.conftest import EVERYTHING
from tests.cli.update_case import lists_of, options
from tests.index_build.brute import all_distances


class TestUpdate:
    def test_a_run_is_extended_verified_compared_and_extended_again(self, job):
        done = job(
            "update", "run", "--add", "new.npy", "--ids", "new.txt", "--remove", "gone.txt",
            "--out", "run2", "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        found = done.json
        assert (found["added"], found["changed"], found["removed"]) == (60, 5, 2)
        assert found["unchanged"] == 5
        assert found["recall"] == 1.0
        self.check_lists(job.folder)

        verified = api.verify(job.folder / "run2")
        assert verified.passed
        assert verified.recall == 1.0
        again = api.update(
            job.folder / "run", job.folder / "run2", add=job.folder / "new.npy",
            remove=["song-7", "song-8"], options=options(job.folder),
        )  # fmt: skip
        assert not again.made

        report = api.compare(job.folder / "run", job.folder / "run2", min_overlap=1.0)
        assert (report.before, report.after) == (400, 458)
        assert (report.added, report.removed) == (60, 2)
        assert report.changed > 0
        assert report.alarms[0].endswith("less than 1.0")
        assert job("compare", "run", "run2", "--min-overlap", "1.0").code == 4

    @pytest.mark.slow
    def test_what_ingest_turns_away_is_counted_and_listed(self, job):
        add = EVERYTHING[400:].copy()
        add[3, 5] = np.nan
        np.save(job.folder / "new.npy", add)
        (job.folder / "new.txt").write_text("".join(f"song-{i}\n" for i in range(400, 460)))
        command = ("update", "run", "--add", "new.npy", "--ids", "new.txt", "--out", "run2")
        done = job(*command)
        assert done.code == 0, done.err
        assert "rejected" in done.out
        assert "not finite" in (job.folder / "run2" / "rejects.csv").read_text()
        again = job(*command, "--json").json
        assert (again["added"], again["rejected"], again["made"]) == (59, 1, False)
        # another update that isn't let in leaves what this one has listed
        listed = (job.folder / "run2" / "rejects.csv").read_bytes()
        add[7, 5] = np.inf
        np.save(job.folder / "new.npy", add)
        assert "holds another update" in job(*command).err
        assert (job.folder / "run2" / "rejects.csv").read_bytes() == listed

    def test_other_labels_of_the_same_vectors_are_taken_and_change_no_list(self, job):
        def relabelled(run, out, titles):
            np.save(job.folder / "known.npy", EVERYTHING[:3])
            (job.folder / "known.csv").write_text("id,title\n" + "".join(titles))
            command = ("update", run, "--add", "known.npy", "--ids", "known.csv", "--out", out)
            return job(*command, "--json")

        done = relabelled("run", "run2", ["song-0,A\n", "song-1,B\n", "song-2,\n"])
        assert done.code == 0, done.err
        assert (done.json["unchanged"], done.json["relabelled"], done.json["lists"]) == (3, 2, 0)
        done = relabelled("run2", "run3", ["song-0,A\n", "song-1,new\n", "song-2,C\n"])
        assert (done.json["unchanged"], done.json["relabelled"]) == (3, 2)
        found = pq.read_table(job.folder / "run3/vectors/recordings.parquet")
        assert found["title"].to_pylist()[:4] == ["A", "new", "C", None]
        with (
            h5py.File(job.folder / "run/matrix.h5") as old,
            h5py.File(job.folder / "run3/matrix.h5") as new,
        ):
            for name in ("neighbours", "distances"):
                np.testing.assert_array_equal(new[name][:], old[name][:])
        assert api.verify(job.folder / "run3").passed

    def test_where_nothing_changed_the_new_run_has_the_lists_of_the_old(self, job):
        done = job("update", "run", "--add", "vectors", "--out", "run2", "--json")
        assert done.code == 0, done.err
        assert (done.json["unchanged"], done.json["lists"], done.json["n"]) == (400, 0, 400)
        assert api.verify(job.folder / "run2").passed
        for found, expected in zip(
            lists_of(job.folder / "run2"), lists_of(job.folder / "run"), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        (job.folder / "gone.txt").write_text("")
        assert job("update", "run2", "--remove", "gone.txt", "--out", "run3").code == 0

    def test_ids_of_a_vector_set_are_its_own(self, job):
        command = ("update", "run", "--add", "vectors", "--ids", "gone.txt", "--out", "run2")
        done = job(*command)
        assert done.code == 2
        assert "leave --ids out" in done.err

    @pytest.mark.slow
    def test_a_run_that_an_update_made_may_be_moved(self, job):
        assert job("update", "run", "--remove", "gone.txt", "--out", "run2").code == 0
        (job.folder / "run2").rename(job.folder / "elsewhere")
        assert api.verify(job.folder / "elsewhere").passed
        (job.folder / "more.txt").write_text("song-9\n")
        # what lies at its old place by now doesn't matter
        shutil.copytree(job.folder / "run", job.folder / "run2")
        shutil.copytree(job.folder / "vectors", job.folder / "run2" / "vectors")
        assert job("update", "elsewhere", "--remove", "more.txt", "--out", "run3").code == 0
        assert lists_of(job.folder / "run3")[2].tolist() == [7, 8, 9]

    def check_lists(self, folder):
        vectors = np.load(folder / "run2/vectors/vectors.npy")
        expected = EVERYTHING.copy()
        expected[390:395] += np.float32(0.01)
        np.testing.assert_array_equal(vectors, expected)
        near, far, removed = lists_of(folder / "run2")
        assert removed.tolist() == [7, 8]
        distances = all_distances(vectors, "l2").astype(np.float32)
        distances[:, removed] = np.inf
        live = np.setdiff1d(np.arange(460), removed)
        np.testing.assert_allclose(far[live], np.sort(distances, axis=1)[live, :10], rtol=1e-5)
        assert (near[removed] == -1).all()
        ids = pq.read_table(folder / "run2/vectors/recordings.parquet")["recording_id"].to_pylist()
        assert ids == [f"song-{i}" for i in range(460)]

    def test_a_plan_counts_and_writes_nothing(self, job):
        plan = job("update", "run", "--remove", "gone.txt", "--out", "run2", "--dry-run", "--json")
        assert plan.json["removed"] == 2
        assert not (job.folder / "run2").exists()

    @pytest.mark.slow
    def test_status_says_that_and_why_a_rebuild_is_due(self, job):
        gone = [f"song-{i}" for i in range(100)]
        api.update(job.folder / "run", job.folder / "run2", remove=gone)
        done = job("status", "run2")
        assert done.code == 0, done.err
        assert "100 of 400 rows are removed and still take room" in done.out
        assert "rebuild" not in job("status", "run").out

    def test_without_removed_recordings_a_set_can_be_built_anew(self, job):
        api.update(job.folder / "run", job.folder / "run2", remove=["song-7"])
        fresh = api.compact(job.folder / "run2/vectors", job.folder / "fresh")
        assert fresh.n == 399
        assert "song-7" not in fresh.ids.to_pylist()

    def test_a_set_is_written_anew_over_nothing_but_another_set(self, job):
        before = (job.folder / "vectors/manifest.json").read_bytes()
        (job.folder / "index").mkdir()
        (job.folder / "index/index.json").write_text("{}")
        for out, says in (("vectors", "made from"), ("index", "holds index.json")):
            done = job("compact", "vectors", "--out", out)
            assert done.code == 2
            assert says in done.err
        assert sorted(path.name for path in (job.folder / "index").iterdir()) == ["index.json"]
        assert (job.folder / "vectors/manifest.json").read_bytes() == before


class TestCells:
    def test_of_two_first_updates_at_once_the_slower_takes_the_cells_of_the_quicker(
        self, job, monkeypatch
    ):
        run, made = job.folder / "run", []

        def overtaken(base):
            cells = prepared_cells(base)
            if not made:
                made.append(None)
                api.update(run, job.folder / "quicker", remove=["song-9"])
                made.append((run / "cells/manifest.json").stat())
            return cells

        monkeypatch.setattr("nearfield.api.update_steps.prepared_cells", overtaken)
        assert api.update(run, job.folder / "slower", remove=["song-7"]).removed == 1
        assert (run / "cells/manifest.json").stat().st_mtime_ns == made[1].st_mtime_ns

    @pytest.mark.slow
    def test_a_build_leaves_its_cells_for_the_first_update(self, tmp_path):
        vectors = manifold(6_100, 16)
        vectors[50:60] = vectors[50]
        for name, first, stop in (("old", 0, 6_000), ("new", 6_000, 6_100)):
            ids = pa.table({"recording_id": np.arange(first, stop)})
            write_vector_set(tmp_path / name, vectors[first:stop], ids, Geometry())
        api.build(tmp_path / "old", tmp_path / "run", k=10, recall=0.8, method="selfjoin")
        drift = api.run_drift(tmp_path / "run")
        assert (drift.live, drift.added, drift.due) == (6_000, 0, ())
        home = np.load(tmp_path / "run/cells/home.npy")
        centres = np.load(tmp_path / "run/cells/centres.npy")
        far = ((vectors[:6_000, None] - centres[None]) ** 2).sum(axis=2)
        own = far[np.arange(6_000), home]
        assert (own <= far.min(axis=1) * 1.0001).all()

        api.update(tmp_path / "run", tmp_path / "run2", add=tmp_path / "new")
        steps = [json.loads(it) for it in (tmp_path / "run2/steps.jsonl").read_text().splitlines()]
        assert next(it for it in steps if it["step"] == "cells")["kept"]
        assert api.verify(tmp_path / "run2").recall > 0.8

    @pytest.mark.slow
    def test_the_first_removal_from_a_fresh_run_searches_few_lists(self, tmp_path):
        vectors = islands()
        ids = pa.table({"recording_id": [f"song-{i}" for i in range(len(vectors))]})
        write_vector_set(tmp_path / "old", vectors, ids, Geometry())
        api.build(tmp_path / "old", tmp_path / "run", k=10, method="selfjoin")
        gone = np.random.default_rng(2).choice(len(vectors), 60, replace=False)
        report = api.update(
            tmp_path / "run", tmp_path / "run2", remove=[f"song-{row}" for row in gone]
        )
        assert report.lost > 300
        assert report.refilled == 0
        distances = all_distances(vectors, "l2").astype(np.float32)
        distances[:, gone] = np.inf
        live = np.setdiff1d(np.arange(len(vectors)), gone)
        nearest = np.sort(np.partition(distances[live], 10, axis=1)[:, :10], axis=1)
        near, far, removed = lists_of(tmp_path / "run2")
        assert removed.tolist() == sorted(gone)
        np.testing.assert_allclose(far[live], nearest, rtol=1e-5, atol=1e-6)
        assert not np.isin(near[live], gone).any()


def islands():
    """6,000 vectors whose neighbours are all on one of 100 islands; some are equal to another."""
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.normal(size=(100, 8)), 60, axis=0)
    vectors += rng.normal(scale=1e-2, size=vectors.shape)
    vectors[rng.choice(6_000, 600, replace=False)] = vectors[rng.choice(6_000, 600, replace=False)]
    return vectors.astype(np.float32)
