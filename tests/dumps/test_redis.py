"""The matrix in a real Redis: whole, resumable, one loader, readers never see a mixture."""

import re
import signal
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dumps.redis import PAIR, Reader, connected, has_password, load_redis, shown
from nearfield import api
from nearfield.cli import app
from nearfield.errors import DatabaseError, InputRejected, QualityGate, RunLocked, UsageError
from tests.dumps.postgres_case import loadable_run
from tests.dumps.redis_case import running_redis

redis = pytest.importorskip("redis")
N, K = 3000, 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def url(server):
    with connected(server) as client:
        client.flushall()
    return server


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [loadable_run(folder / str(seed), n=N, k=K, seed=seed) for seed in (1, 2)]


def truth(run):
    with h5py.File(run.matrix) as file:
        return file["neighbours"][...], file["distances"][...]


def test_every_list_is_there_to_the_bit(url, runs):
    report = load_redis(runs[0], url)
    assert (report.rows, report.k, report.resumed_from, report.removed) == (N, K, 0, ())
    neighbours, distances = truth(runs[0])
    with connected(url) as client:
        stored = client.mget(f"nearfield:{report.run}:list:id-{row}" for row in range(N))
        pairs = np.frombuffer(b"".join(stored), PAIR).reshape(N, K)
        facts = client.hgetall(f"nearfield:{report.run}:facts")
    np.testing.assert_array_equal(pairs["row"], neighbours)
    np.testing.assert_array_equal(pairs["distance"].view(np.uint32), distances.view(np.uint32))
    assert (facts[b"n"], facts[b"k"], facts[b"loaded"]) == (b"3000", b"4", b"3000")


def test_a_lookup_names_the_nearest(url, runs):
    load_redis(runs[0], url)
    neighbours, distances = truth(runs[0])
    with connected(url) as client:
        reader = Reader(client)
        for row in (0, 127, 128, N - 1):
            found = reader.similar(f"id-{row}", 3)
            assert [one.recording_id for one in found] == [f"id-{i}" for i in neighbours[row, :3]]
            assert [one.distance for one in found] == distances[row, :3].tolist()
        assert len(reader.similar("id-0", 99)) == K
        with pytest.raises(InputRejected, match="no recording"):
            reader.similar("nobody")


def test_nothing_published_is_said(url):
    with connected(url) as client, pytest.raises(InputRejected, match="no published run"):
        Reader(client).similar("id-0")


def test_again_does_nothing_and_another_run_replaces_it(url, runs):
    first = load_redis(runs[0], url)
    assert load_redis(runs[0], url).already_loaded
    second = load_redis(runs[1], url)
    assert second.removed == (first.run,)
    with connected(url) as client:
        assert client.keys(f"nearfield:{first.run}:*") == []
        assert client.get("nearfield:current") == second.run.encode()
        assert client.get("nearfield:loading") is None


KILLED = """
import os, signal, sys
from pathlib import Path
import dumps.redis as loading
from nearfield.run import open_run

loading.BATCH_PLACES = 400
own, calls = getattr(loading, sys.argv[3]), []
def dies(*args):
    calls.append(1)
    if len(calls) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return own(*args)
setattr(loading, sys.argv[3], dies)
loading.load_redis(open_run(Path(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.parametrize(
    ("step", "call", "resumed"),
    [
        ("_send", 12, 1100),
        ("_publish", 1, N),
        pytest.param("_send", 1, 0, marks=pytest.mark.long),
        pytest.param("_check_loaded", 1, N, marks=pytest.mark.long),
    ],
)
def test_a_killed_loader_is_resumed_and_readers_kept_the_old_run(url, runs, step, call, resumed):
    old = load_redis(runs[0], url)
    command = [sys.executable, "-c", KILLED, runs[1].path, url, step, str(call)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with connected(url) as client:
        assert client.get("nearfield:current") == old.run.encode()
        assert client.get("nearfield:loading")
    report = load_redis(runs[1], url)
    assert (report.resumed_from, report.removed) == (resumed, (old.run,))
    lists_are_there(url, runs[1], report.run)


def lists_are_there(url, run, name):
    with connected(url) as client:
        stored = client.mget(f"nearfield:{name}:list:id-{row}" for row in range(N))
    assert np.array_equal(np.frombuffer(b"".join(stored), PAIR)["row"].reshape(N, K), truth(run)[0])


def test_readers_see_one_run_or_the_other_while_they_are_exchanged(url, runs):
    lists = [truth(run)[0][7].tolist() for run in runs]
    expected = [[f"id-{i}" for i in each] for each in lists]
    load_redis(runs[0], url)
    seen, stop = [], threading.Event()

    def read():
        with connected(url) as client:
            reader = Reader(client)
            while not stop.is_set():
                seen.append([one.recording_id for one in reader.similar("id-7", K)])

    reading = threading.Thread(target=read)
    reading.start()
    for turn in range(6):
        load_redis(runs[(turn + 1) % 2], url)
    stop.set()
    reading.join()
    assert {tuple(each) for each in seen} == {tuple(each) for each in expected}


def test_a_second_loader_is_refused_while_the_first_is_connected(url, runs):
    with connected(url) as client:
        server = client.info("server")["run_id"]
        client.set("nearfield:loading", f"{server}:{client.client_id()}")
        with pytest.raises(RunLocked, match="another nearfield process"):
            load_redis(runs[0], url)
    load_redis(runs[0], url)


def test_lists_that_vanish_while_loading_arent_published(url, runs, monkeypatch):
    import dumps.redis as loading

    own = loading._check_loaded

    def meddle(client, name, matrix):
        client.delete(f"nearfield:{name}:list:id-5")
        own(client, name, matrix)

    monkeypatch.setattr(loading, "_check_loaded", meddle)
    with pytest.raises(DatabaseError, match="nothing was published"):
        load_redis(runs[0], url)
    monkeypatch.undo()
    assert load_redis(runs[0], url).resumed_from == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--maxmemory", "300kb"), "maxmemory"),
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "vanish unnoticed"),
    ],
)
def test_a_server_that_is_too_small_is_named_beforehand(tmp_path, runs, options, said):
    with running_redis(tmp_path, *options) as url, pytest.raises(DatabaseError, match=said):
        load_redis(runs[0], url)


def test_what_runs_full_all_the_same_is_said(tmp_path, runs, monkeypatch):
    monkeypatch.setattr("dumps.redis._check_room", lambda *_words, **_options: None)
    with (
        running_redis(tmp_path, "--maxmemory", "1100kb") as url,
        pytest.raises(DatabaseError, match="no memory left"),
    ):
        load_redis(runs[0], url)


def test_two_runs_must_have_room_until_one_is_published(tmp_path, runs):
    with running_redis(tmp_path) as url:
        load_redis(runs[0], url)
        with connected(url) as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 300_000)
        with pytest.raises(DatabaseError, match="left of maxmemory"):
            load_redis(runs[1], url)
        with connected(url) as client:
            assert client.keys("nearfield:*:list:id-0") != []
        assert load_redis(runs[0], url).already_loaded


def test_what_was_lost_since_is_loaded_anew(url, runs):
    report = load_redis(runs[0], url)
    with connected(url) as client:
        client.delete(f"nearfield:{report.run}:list:id-5", f"nearfield:{report.run}:list:id-2999")
    again = load_redis(runs[0], url)
    assert not again.already_loaded
    lists_are_there(url, runs[0], report.run)


@pytest.mark.parametrize("place", ["option", "environment"])
@pytest.mark.parametrize("character", "/?#")
def test_a_password_that_tears_its_address_is_never_shown(runs, monkeypatch, place, character):
    address = f"redis://:pa{character}ss@host:6379/0"
    monkeypatch.setenv("NEARFIELD_REDIS", address)
    given = "env" if place == "environment" else address
    for command in (api.load_redis, api.plan_load_redis):
        with pytest.raises(UsageError, match="percent-encoded") as caught:
            command(runs[0].path, given)
        assert "ss@" not in str(caught.value)


def test_no_server_and_wrong_addresses_are_said(tmp_path, runs):
    for url in (f"unix://{tmp_path}/none", "redis://localhost:1/0", "http://localhost"):
        with pytest.raises(DatabaseError, match="Redis at"):
            load_redis(runs[0], url)


def test_an_unverified_run_needs_force(url, tmp_path):
    run = loadable_run(tmp_path, n=20, k=2)
    run.verification.unlink()
    with pytest.raises(QualityGate):
        load_redis(run, url)
    assert load_redis(run, url, force=True).forced


def test_passwords_stay_off_the_command_line(runs, tmp_path, monkeypatch):
    assert has_password("redis://:secret@host/0")
    assert has_password("redis://host/0?password=secret")
    assert shown("redis://user:secret@host:1/0?x=y") == "redis://host:1/0"
    with pytest.raises(UsageError, match="NEARFIELD_REDIS") as caught:
        api.load_redis(runs[0].path, "redis://:secret@host/0")
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="it isn't set"):
        api.load_redis(runs[0].path)
    with running_redis(tmp_path, "--requirepass", "secret") as url:
        with pytest.raises(DatabaseError, match="authenticat"):
            api.load_redis(runs[0].path, url)
        monkeypatch.setenv("NEARFIELD_REDIS", f"{url}?password=secret".replace("//", "//:secret@"))
        assert "secret" not in api.plan_load_redis(runs[0].path).target
        assert api.load_redis(runs[0].path).rows == N


def test_the_command_loads(url, runs, monkeypatch):
    monkeypatch.setenv("NEARFIELD_REDIS", url)
    command = ["load", str(runs[0].path), "--redis"]
    done = [
        CliRunner().invoke(app, [*command, *more])
        for more in ([url, "--dry-run"], ["env"], [url], [url, "--dsn", "x"])
    ]
    assert [each.exit_code for each in done[:3]] == [0, 0, 0]
    assert isinstance(done[3].exception, UsageError)
    assert "about" in done[0].stdout
    assert re.search("published +run [0-9a-f]{16}, 3,000 recordings", done[1].stdout)
    assert "before" in done[2].stdout
