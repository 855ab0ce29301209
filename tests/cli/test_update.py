"""`nearfield update`, `compare` and `compact` as a user runs them, and their mistakes."""

import json
import os
import shutil
import signal
import time

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.datasets.manifold import manifold
from index_build.update.update import prepared_cells
from nearfield import api
from nearfield.errors import DiskFull, InputRejected, MissingFile, UsageError
from nearfield.vectorset import Geometry, row_blocks, write_vector_set
from tests.cli.conftest import clustered
from tests.index_build.brute import all_distances

EVERYTHING = np.concatenate([clustered(400), clustered(60, seed=1)])


@pytest.fixture
def job(at):
    """A verified run of 400 recordings, and 60 more of which 10 are there already, 5 changed."""
    program = at("verified")
    add = EVERYTHING[390:].copy()
    add[:5] += 0.01
    np.save(program.folder / "new.npy", add)
    (program.folder / "new.txt").write_text("".join(f"song-{i}\n" for i in range(390, 460)))
    (program.folder / "gone.txt").write_text("song-7\nsong-8\n")
    return program


def lists_of(folder):
    with h5py.File(folder / "matrix.h5") as file:
        return file["neighbours"][:], file["distances"][:], file["removed"][:]


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
        again = relabelled("run3", "run4", ["song-0,A\n", "song-1,\n", "song-2,C\n"])
        assert again.code == 3
        assert "same vectors and labels" in again.err

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

    @pytest.mark.slow
    def test_status_says_how_an_unfinished_update_goes_on(self, job):
        job("update", "run", "--remove", "gone.txt", "--out", "run2", "--no-matrix")
        assert "without --no-matrix" in job("status", "run2").err
        assert job("update", "run", "--remove", "gone.txt", "--out", "run2").code == 0
        (job.folder / "run2" / "matrix.json").unlink()
        assert "nearfield update" in api.status(job.folder / "run2").advice

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

    def test_a_delta_alone_is_finished_by_the_next_update(self, job):
        first = api.update(job.folder / "run", job.folder / "run2", remove=["song-1"], matrix=False)
        assert first.recall is None
        assert not (job.folder / "run2" / "matrix.h5").exists()
        second = api.update(job.folder / "run2", job.folder / "run3", remove=["song-2"])
        assert second.recall == 1.0
        assert (job.folder / "run2" / "matrix.json").exists()
        assert lists_of(job.folder / "run3")[2].tolist() == [1, 2]
        assert api.run_drift(job.folder / "run3").removed == 2

    def test_a_base_whose_finishing_broke_off_is_finished_by_the_same_call(self, job, monkeypatch):
        folder = job.folder
        api.update(folder / "run", folder / "run2", remove=["song-1"], matrix=False)

        def full(*_words, **_options):
            raise DiskFull("no room left")

        with monkeypatch.context() as patched, pytest.raises(DiskFull):
            patched.setattr("nearfield.api.update_steps.write_matrix", full)
            api.update(folder / "run2", folder / "run3", remove=["song-2"])
        api.update(folder / "run2", folder / "run3", remove=["song-2"])
        assert lists_of(folder / "run3")[2].tolist() == [1, 2]

    @pytest.mark.slow
    def test_a_delta_is_not_applied_to_what_took_the_place_of_its_run(self, job):
        folder = job.folder
        api.update(folder / "run", folder / "run2", remove=["song-1"], matrix=False)
        shutil.rmtree(folder / "run")
        assert job("build", "vectors", "--out", "run", "-k", 10).code == 0
        with pytest.raises(MissingFile, match="has been replaced"):
            api.update(folder / "run2", folder / "run3", remove=["song-2"])

    def test_ctrl_c_waits_for_no_vectors(self, job, monkeypatch):
        blocks, slow = [], row_blocks

        def slowly(vectors, size):
            for block in slow(vectors, 64 * vectors.itemsize * vectors.shape[1]):
                blocks.append(len(block))
                time.sleep(0.2)
                yield block

        def interrupted(*_words):
            while not blocks:
                time.sleep(0.01)
            raise KeyboardInterrupt

        monkeypatch.setattr("nearfield.vectorset.row_blocks", slowly)
        monkeypatch.setattr("nearfield.api.update_steps.computed_delta", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.update(job.folder / "run", job.folder / "run2", remove=["song-1"])
        assert len(blocks) <= 2
        assert not list((job.folder / "run2" / "vectors").iterdir())

    def test_a_plan_counts_and_writes_nothing(self, job):
        plan = job("update", "run", "--remove", "gone.txt", "--out", "run2", "--dry-run", "--json")
        assert plan.json["removed"] == 2
        assert not (job.folder / "run2").exists()

    @pytest.mark.slow
    def test_killed_at_any_point_the_same_command_converges(self, job):
        command = ("update", "run", "--remove", "gone.txt", "--out", "run2")
        process = job.start(*command)
        for _ in range(6_000):
            if (job.folder / "run2" / "delta").exists() or process.poll() is not None:
                break
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done = job(*command)
        assert done.code == 0, done.err
        assert api.verify(job.folder / "run2").passed

    @pytest.mark.parametrize(
        "step",
        ["write_delta", "write_updated_set", "sampled_recall", "write_matrix", "write_cells"],
    )
    def test_stopped_at_any_step_the_same_update_converges(self, job, monkeypatch, step):
        gone = ["song-7", "song-8"]
        api.update(job.folder / "run", job.folder / "whole", remove=gone)
        with monkeypatch.context() as patched:
            patched.setattr(f"nearfield.api.update_steps.{step}", _stop)
            with pytest.raises(KeyboardInterrupt):
                api.update(job.folder / "run", job.folder / "run2", remove=gone)
        again = api.update(job.folder / "run", job.folder / "run2", remove=gone)
        assert again.recall == 1.0
        assert api.run_drift(job.folder / "run2") == api.run_drift(job.folder / "whole")
        for found, expected in zip(
            lists_of(job.folder / "run2"), lists_of(job.folder / "whole"), strict=True
        ):
            np.testing.assert_array_equal(found, expected)

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


def _stop(*_given, **_named):
    raise KeyboardInterrupt


def options(folder, ids="new.txt"):
    from nearfield.ingest.options import IngestOptions

    return IngestOptions(ids=folder / ids)


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:])


class TestMistakes:
    def test_unknown_ids(self, job):
        (job.folder / "gone.txt").write_text("song-7\nnobody\n")
        done = job("update", "run", "--remove", "gone.txt", "--out", "run2")
        assert done.code == 3
        assert "first: 'nobody'" in done.err

    def test_ids_that_come_twice(self, job):
        (job.folder / "new.txt").write_text(
            "song-500\n" * 2 + "".join(f"song-{i}\n" for i in range(501, 569))
        )
        with pytest.raises(InputRejected, match="come more than once"):
            api.update(
                job.folder / "run", job.folder / "run2", add=job.folder / "new.npy",
                options=options(job.folder),
            )  # fmt: skip

    def test_vectors_of_another_width(self, job):
        np.save(job.folder / "new.npy", np.ones((70, 5), np.float32))
        with pytest.raises((InputRejected, UsageError)):
            api.update(
                job.folder / "run", job.folder / "run2", add=job.folder / "new.npy",
                options=options(job.folder),
            )  # fmt: skip

    def test_a_run_that_is_not_finished(self, job):
        (job.folder / "run" / "matrix.json").unlink()
        with pytest.raises(MissingFile):
            api.update(job.folder / "run", job.folder / "run2", remove=["song-1"])

    def test_its_own_place_and_the_place_of_another_update(self, job):
        with pytest.raises(UsageError, match="the run stays as it is"):
            api.update(job.folder / "run", job.folder / "run", remove=["song-1"])
        api.update(job.folder / "run", job.folder / "run2", remove=["song-1"], matrix=False)
        with pytest.raises(UsageError, match="holds another update"):
            api.update(job.folder / "run", job.folder / "run2", remove=["song-2"], matrix=False)

    def test_what_is_refused_leaves_nothing_behind(self, job):
        run, out = job.folder / "run", job.folder / "run2"
        wide = write_vector_set(
            job.folder / "wide", clustered(3, d=5), pa.table({"recording_id": ["a", "b", "c"]}),
            Geometry(),
        )  # fmt: skip
        same = {"add": job.folder / "vectors"}
        sources = {"add": job.folder / "embeddings.npy", "options": options(job.folder, "ids.txt")}
        for message, asked in (
            ("nothing to do: all 400", same),
            ("nothing to do: all 400", sources),
            ("nothing to do: name recordings", {}),
            ("aren't in the run", {"remove": ["nobody"]}),
            ("too few for lists of 10", {"remove": [f"song-{i}" for i in range(395)]}),
            ("added and removed at once", same | {"remove": ["song-7"]}),
            ("has 5 under l2", {"add": wide.path}),
        ):
            with pytest.raises(InputRejected, match=message):
                api.update(run, out, **asked)
            assert not out.exists(), message
        assert api.update(run, out, remove=["song-7"]).made

    def test_what_is_refused_takes_nothing_away(self, job):
        run, out = job.folder / "run", job.folder / "run2"
        out.mkdir()
        with pytest.raises(InputRejected, match="nothing to do"):
            api.update(run, out, add=job.folder / "vectors")
        assert [it.name for it in out.iterdir()] == [".lock"]
        api.update(run, out, remove=["song-7"], matrix=False)
        before = sorted(out.rglob("*"))
        damage(run / "matrix.h5")
        with pytest.raises(InputRejected, match="checksum"):
            api.update(run, out, remove=["song-7"])
        assert sorted(out.rglob("*")) == before

    def test_what_was_to_be_added_to_another_update_does_not_stay(self, job):
        run, out = job.folder / "run", job.folder / "run2"
        api.update(run, out, remove=["song-7"])
        with pytest.raises(UsageError, match="holds another update"):
            api.update(run, out, add=job.folder / "new.npy", options=options(job.folder))
        assert not (out / "incoming").exists()

    def test_a_base_that_was_changed_is_found_before_anything_is_written(self, job):
        damage(job.folder / "run" / "matrix.h5")
        done = job("update", "run", "--remove", "gone.txt", "--out", "run2")
        assert done.code == 3
        assert not (job.folder / "run2").exists()

    def test_a_verifier_that_is_told_lies_about_removed_rows_finds_them(self, job):
        api.update(job.folder / "run", job.folder / "run2", remove=["song-7"])
        path = job.folder / "run2" / "matrix.h5"
        with h5py.File(path, "r+") as file:
            file["removed"][0] = 9
        manifest = json.loads((job.folder / "run2" / "matrix.json").read_text())
        from nearfield.files import sha256_of

        manifest["files"]["matrix.h5"] = {
            "bytes": path.stat().st_size, "sha256": sha256_of(path),
        }  # fmt: skip
        (job.folder / "run2" / "matrix.json").write_text(json.dumps(manifest))
        report = api.verify(job.folder / "run2")
        assert not report.passed
        assert "removed" in report.problems[0]
