"""What keeps machines alive and brings results home, without a machine."""

import time
from types import SimpleNamespace

import pytest

from nearfield.errors import Infrastructure
from vm_scripts import jobs, remote

HEAD = SimpleNamespace(name="head", ssh_address="10.0.0.1")
SHELL = SimpleNamespace(
    options=lambda _host: [], inventory=SimpleNamespace(hosts=[HEAD], scheduler=HEAD)
)


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
    assert isinstance(caught.value, remote.CutOff) is cut


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Fetches to here; says how often it tried."""
    monkeypatch.setenv("TRIES", str(tmp_path / "tries"))
    job = SimpleNamespace(folder=tmp_path / "job")

    def fetch(idle_minutes):
        machines = SimpleNamespace(folder="/there", idle_minutes=idle_minutes)
        jobs.fetch_over_outages(job, machines, SHELL, poll_s=0.01)

    return fetch, lambda: len((tmp_path / "tries").read_text().split())


def test_a_fetch_goes_on_after_an_outage(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; [ "$(wc -l <"$TRIES")" -ge 3 ] || exit 255')
    fetch(30)
    assert tries() == 3


def test_an_outage_that_lasts_ends_a_fetch(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; exit 255')
    with pytest.raises(remote.CutOff):
        fetch(0.002)
    assert tries() > 1


def test_a_full_disk_here_ends_a_fetch_at_once(rsync, home):
    fetch, tries = home
    rsync('echo x >>"$TRIES"; exit 11')
    with pytest.raises(Infrastructure):
        fetch(30)
    assert tries() == 1
