"""What keeps machines alive and brings results home, without a machine."""

import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest

from nearfield.clusters.ssh import Unreachable
from nearfield.errors import DiskFull, Infrastructure
from vm_scripts import jobs, remote

HEAD = SimpleNamespace(name="head", ssh_address="10.0.0.1")
SHELL = SimpleNamespace(
    options=lambda _host: [], inventory=SimpleNamespace(hosts=[HEAD], scheduler=HEAD)
)
MACHINES = SimpleNamespace(folder="/there", max_hours=1, idle_minutes=30)


def test_hearts_beat_through_the_block_and_no_longer(monkeypatch):
    beats = []
    monkeypatch.setattr(remote, "BEAT_S", 0.02)
    monkeypatch.setattr(remote, "beat", beats.append)
    with remote.beating(SHELL):
        until = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert beats[:3] == [SHELL] * 3
    number = len(beats)
    time.sleep(0.1)
    assert len(beats) == number


def test_a_heart_beats_on_after_any_error(monkeypatch, capsys):
    beats = []

    def beat(shell):
        beats.append(shell)
        if len(beats) == 1:
            raise OSError("Cannot allocate memory")

    monkeypatch.setattr(remote, "BEAT_S", 0.02)
    monkeypatch.setattr(remote, "beat", beat)
    with remote.beating(SHELL):
        until = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(beats) >= 3
    assert capsys.readouterr().err == "no heartbeat: Cannot allocate memory\n"


@pytest.mark.parametrize("call", ["job_state", "report_of"])
def test_an_outage_as_the_job_ends_loses_nothing(monkeypatch, call):
    answers = {"job_state": remote.JobState(False, 0, "", 0), "report_of": {"run": "runs/one"}}
    tries = []

    def answering(name):
        def answer(*_):
            tries.append(name)
            if name == call and tries.count(name) < 3:
                raise Unreachable("head can't be reached")
            return answers[name]

        return answer

    for name in answers:
        monkeypatch.setattr(remote, name, answering(name))
    assert jobs.follow(MACHINES, SHELL, poll_s=0.01) == {"run": "runs/one"}
    assert tries.count(call) == 3


@pytest.mark.parametrize(("took_s", "tries"), [(130.1, 13), (700, 50)])
def test_a_host_that_never_answers_ends_the_waiting_and_a_copy_that_gets_on_does_not(
    monkeypatch, took_s, tries
):
    clock, begun = [0.0], []
    monkeypatch.setattr(jobs, "time", SimpleNamespace(
        monotonic=lambda: clock[0], sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    ))  # fmt: skip

    def silent():
        begun.append(clock[0])
        clock[0] += took_s
        if len(begun) == 50:
            raise KeyboardInterrupt
        raise Unreachable("no answer within 120 s")

    with pytest.raises((Unreachable, KeyboardInterrupt)):
        jobs.over_outages(silent, 1800)
    assert abs(len(begun) - tries) <= 2


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_what_left_a_source_folder_leaves_the_head_too(tmp_path, monkeypatch):
    source, there = tmp_path / "here" / "parts", tmp_path / "there"
    source.mkdir(parents=True)
    for name in ("a.npy", "b.npy"):
        (source / name).write_bytes(b"x")
    (tmp_path / "job.toml").write_text('[ingest]\nsources = ["here/parts"]\n')
    job, machines = jobs.read_job(tmp_path / "job.toml"), SimpleNamespace(folder=str(there))
    head = SimpleNamespace(name="head", ssh_address="here")
    shell = SimpleNamespace(
        inventory=SimpleNamespace(scheduler=head, hosts=[head], folder="/f", name="weekly"),
        options=lambda _host: [],
    )
    monkeypatch.setattr(remote, "_place", lambda host: "")
    monkeypatch.setattr(
        remote, "_rsync",
        lambda _s, _h, words: subprocess.run(
            ["rsync", "-a", "--mkpath", *(one.removeprefix(":") for one in words)], check=True
        ),
    )  # fmt: skip
    for names in ({"a.npy", "b.npy"}, {"a.npy"}):
        for gone in {"a.npy", "b.npy"} - names:
            (source / gone).unlink()
        jobs.push(job, machines, shell, tmp_path / "state")
        assert {path.name for path in there.rglob("*.npy")} == names


@pytest.fixture
def rsync(tmp_path, monkeypatch):
    """Puts a program in rsync's place."""

    def put(script):
        path = tmp_path / "rsync"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def test_a_copy_ends_in_the_time_that_it_is_given(rsync, tmp_path):
    rsync("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(Infrastructure, match="took over 0 s"):
        remote.copy_from(SHELL, HEAD, "/there/", tmp_path, timeout_s=0.3)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("code", "cut"), [(255, True), (12, True), (11, False), (23, False)])
def test_a_lost_connection_is_told_from_other_faults(rsync, tmp_path, code, cut):
    rsync(f"echo no >&2; exit {code}")
    with pytest.raises(Infrastructure) as caught:
        remote.copy_from(SHELL, HEAD, "/there/", tmp_path)
    assert isinstance(caught.value, Unreachable) is cut


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Fetches to here; says how often it tried."""
    monkeypatch.setenv("TRIES", str(tmp_path / "tries"))
    job = SimpleNamespace(folder=tmp_path / "job")

    def fetch(patience_s):
        jobs.over_outages(
            lambda: jobs.fetch(job, MACHINES, SHELL), patience_s,
            outage=(Unreachable, DiskFull), poll_s=0.01,
        )  # fmt: skip

    return fetch, lambda: len((tmp_path / "tries").read_text().split())


def test_a_fetch_goes_on_after_an_outage(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; [ "$(wc -l <"$TRIES")" -ge 3 ] || exit 255')
    fetch(1800)
    assert tries() == 4  # what comes is asked first


def test_an_outage_that_lasts_ends_a_fetch(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; exit 255')
    with pytest.raises(Unreachable):
        fetch(0.1)
    assert tries() > 1


def test_a_full_disk_here_ends_a_fetch_at_once(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; exit 11')
    with pytest.raises(Infrastructure):
        fetch(1800)
    assert tries() == 1


def test_what_has_no_room_here_is_waited_for_and_said_with_both_figures(rsync, home, capsys):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; echo "$((1 << 60)) runs/one/matrix.h5"')
    with pytest.raises(DiskFull, match="1,152,921,504,606,846,976"):
        fetch(0.1)
    assert tries() > 1
    assert "room for" in capsys.readouterr().err


def test_the_longest_that_a_job_may_take_holds_while_the_head_is_silent(monkeypatch):
    def silent(*_):
        raise Unreachable("head can't be reached")

    monkeypatch.setattr(remote, "job_state", silent)
    machines, began = SimpleNamespace(folder="/f", idle_minutes=30, max_hours=0.0), time.monotonic()
    with pytest.raises(Unreachable):
        jobs.follow(machines, SHELL, poll_s=0.01)
    assert time.monotonic() - began < 30
