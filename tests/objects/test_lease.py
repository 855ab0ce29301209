"""The lease of a prefix: one holder, found dead in time, found out when it was replaced."""

import subprocess
import sys
import threading
import time

import pytest

from nearfield import lease
from nearfield.errors import MissingFile, RunLocked, StoreError
from nearfield.locations import location
from nearfield.lock import held


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "EXPIRES_S", 60.0)


@pytest.fixture
def place(bucket):
    return location(bucket) / "run"


def eventually(holds, within_s=60):
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def raised_by(check):
    try:
        check()
    except (RunLocked, StoreError) as error:
        return error
    return None


def as_another_machine(monkeypatch):
    monkeypatch.setattr(lease, "_machine", lambda: "another machine")


def test_it_is_held_renewed_and_given_back(place):
    with held(place) as check:
        first = (place / ".lock").read_bytes()
        eventually(lambda: (place / ".lock").read_bytes() != first)
        check()
    assert not (place / ".lock").exists()
    with held(place):
        pass


def test_a_living_holder_is_named(place):
    with held(place), pytest.raises(RunLocked, match=r"in use by another.*pid"), held(place):
        pass


def test_a_dead_process_of_this_machine_is_replaced_at_once(place, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_S", 600.0)
    program = (
        "import os, sys; from nearfield.lease import leased; from nearfield.locations import "
        "location\nwith leased(location(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(place)], check=False).returncode == 9
    assert (place / ".lock").exists()
    started = time.monotonic()
    with held(place):
        assert time.monotonic() - started < 300


def test_a_silent_holder_elsewhere_is_replaced_after_a_while(place, monkeypatch, capsys):
    monkeypatch.setattr(lease, "EXPIRES_S", 2.0)
    with monkeypatch.context() as elsewhere:
        as_another_machine(elsewhere)
        silent = lease.Hold(place / ".lock")
        silent.take()
    started = time.monotonic()
    with held(place) as check:
        assert time.monotonic() - started >= 2
        check()
    assert "waiting up to" in capsys.readouterr().err


def test_a_replaced_holder_finds_out(place):
    with held(place) as check:

        def replaced():
            # a renewal that was under way may put its own back
            (place / ".lock").write_bytes(b'{"token": "other", "pid": 1, "host": "elsewhere"}')
            return raised_by(check)

        eventually(replaced)
        with pytest.raises(RunLocked, match=r"taken over.*elsewhere"):
            check()
    # what isn't its own stays
    assert (place / ".lock").exists()


def test_a_holder_that_cant_reach_the_store_stops(place, server, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_S", 2.0)
    with held(place) as check:
        server.stop()
        try:
            eventually(lambda: raised_by(check))
            with pytest.raises(StoreError, match="couldn't be renewed"):
                check()
        finally:
            server.start()


def test_of_many_that_begin_together_one_holds(place):
    holding, refused, gate = [], [], threading.Barrier(4)

    def contend():
        gate.wait()
        try:
            with held(place):
                holding.append(1)
                eventually(lambda: len(refused) == 3)
        except RunLocked:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(holding), len(refused)) == (1, 3)


@pytest.mark.usefixtures("server")
def test_a_missing_bucket_is_said():
    with pytest.raises(MissingFile, match="no bucket"), held(location("s3://not-a-bucket/run")):
        pass
