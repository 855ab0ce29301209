"""An update that broke off anywhere goes on, and ends as if it had not."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from nearfield import api
from nearfield.errors import DiskFull, MissingFile
from nearfield.vectorset import row_blocks
from tests.cli.update_case import lists_of


def test_a_delta_alone_is_finished_by_the_next_update(job):
    first = api.update(job.folder / "run", job.folder / "run2", remove=["song-1"], matrix=False)
    assert first.recall is None
    assert not (job.folder / "run2" / "matrix.h5").exists()
    second = api.update(job.folder / "run2", job.folder / "run3", remove=["song-2"])
    assert second.recall == 1.0
    assert (job.folder / "run2" / "matrix.json").exists()
    assert lists_of(job.folder / "run3")[2].tolist() == [1, 2]
    assert api.run_drift(job.folder / "run3").removed == 2


def test_a_base_whose_finishing_broke_off_is_finished_by_the_same_call(job, monkeypatch):
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
def test_a_delta_is_not_applied_to_what_took_the_place_of_its_run(job):
    folder = job.folder
    api.update(folder / "run", folder / "run2", remove=["song-1"], matrix=False)
    shutil.rmtree(folder / "run")
    assert job("build", "vectors", "--out", "run", "-k", 10).code == 0
    with pytest.raises(MissingFile, match="has been replaced"):
        api.update(folder / "run2", folder / "run3", remove=["song-2"])


def test_ctrl_c_waits_for_no_vectors(job, monkeypatch):
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


@pytest.mark.slow
def test_killed_at_any_point_the_same_command_converges(job):
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
def test_stopped_at_any_step_the_same_update_converges(job, monkeypatch, step):
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
def test_status_says_how_an_unfinished_update_goes_on(job):
    job("update", "run", "--remove", "gone.txt", "--out", "run2", "--no-matrix")
    assert "without --no-matrix" in job("status", "run2").err
    assert job("update", "run", "--remove", "gone.txt", "--out", "run2").code == 0
    (job.folder / "run2" / "matrix.json").unlink()
    assert "nearfield update" in api.status(job.folder / "run2").advice


def _stop(*_given, **_named):
    raise KeyboardInterrupt
