"""Old runs of a job go, those of others and those in use stay."""

import fcntl
import os

import pytest

from nearfield.errors import DamagedArtefact
from nearfield.lock import locked
from nearfield.retention import keep_newest, note_run


def made(place, *names):
    """Runs, each newer than the one before."""
    for age, name in enumerate(reversed(names)):
        (place / name).mkdir(parents=True)
        (place / name / "run.json").write_text("{}")
        os.utime(place / name / "run.json", (1e9 - age, 1e9 - age))
    return [place / name for name in names]


def left(place):
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize(("keep", "stay"), [(1, ["b"]), (2, ["b", "d"]), (9, ["a", "b", "c", "d"])])
def test_the_current_run_and_the_newest_stay(tmp_path, keep, stay):
    _, current, *_ = made(tmp_path / "runs", "a", "b", "c", "d")
    keep_newest(tmp_path, current, keep)
    assert left(tmp_path / "runs") == stay


def test_a_removal_that_was_broken_off_is_finished_by_the_next(tmp_path, monkeypatch):
    old, current = made(tmp_path / "runs", "a", "b")
    (old / "matrix.h5").touch()
    (old / "parts").mkdir()
    (old / "parts" / "1.h5").touch()

    def broken(_folder):
        raise OSError("the power is gone")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="power"):
        patched.setattr("nearfield.retention.remove_tree", broken)
        keep_newest(tmp_path, current, 1)
    assert (old / "run.json").exists()
    keep_newest(tmp_path, current, 1)
    assert left(tmp_path / "runs") == ["b"]


def test_an_old_run_that_is_in_use_stays_and_is_named(tmp_path, capsys):
    old, _, current = made(tmp_path / "runs", "a", "b", "c")
    with locked(old):
        keep_newest(tmp_path, current, 1)
    assert left(tmp_path / "runs") == ["a", "c"]
    assert str(old) in capsys.readouterr().err
    keep_newest(tmp_path, current, 1)
    assert left(tmp_path / "runs") == ["c"]


def test_jobs_that_keep_their_runs_in_one_place_remove_their_own(tmp_path):
    shared = tmp_path / "shared"
    for name in ("a1", "b1", "a2", "b2", "a3"):
        job = tmp_path / name[0]
        note_run(job, shared / name)
        made(shared, name)
        keep_newest(job, shared / name, 1)
    assert left(shared) == ["a3", "b2"]


def test_runs_that_are_gone_are_forgotten(tmp_path):
    job, shared = tmp_path / "job", tmp_path / "shared"
    for name in ("a", "b", "b"):
        note_run(job, shared / name)
    made(shared, "b")
    note_run(job, shared / "c")
    assert "a" not in (job / "runs.json").read_text().split('"')
    assert "b" in (job / "runs.json").read_text().split('"')


def test_a_list_that_cant_be_read_is_named(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "runs.json").write_text("[1]")
    with pytest.raises(DamagedArtefact, match=r"job/runs\.json can't be read"):
        note_run(tmp_path / "job", tmp_path / "shared" / "a")


def test_an_old_run_whose_database_is_served_stays_and_is_named(tmp_path, capsys):
    old, current = made(tmp_path / "runs", "a", "b")
    (old / "postgres").mkdir()
    with (old / "postgres" / "running.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keep_newest(tmp_path, current, 1)
    assert str(old / "postgres") in capsys.readouterr().err
    assert left(old) == [".lock", "postgres", "run.json"]
    keep_newest(tmp_path, current, 1)
    assert left(tmp_path / "runs") == ["b"]
