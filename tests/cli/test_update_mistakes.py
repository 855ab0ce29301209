"""What an update refuses, and that it leaves everything as it was."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pytest

from nearfield import api
from nearfield.errors import InputRejected, MissingFile, UsageError
from nearfield.vectorset import Geometry, write_vector_set
from tests.cli.conftest import clustered
from tests.cli.update_case import damage, options


class TestMistakes:
    def test_nothing_named(self, job):
        done = job("update", "run", "--out", "run2")
        assert done.code == 2
        assert "got neither" in done.err

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
        for message, asked in (
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
        with pytest.raises(InputRejected, match="aren't in the run"):
            api.update(run, out, remove=["nobody"])
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
