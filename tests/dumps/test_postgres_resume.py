"""A load in chunks: what is committed is kept, what isn't whole is never seen."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import numpy as np
import psutil
import psycopg2
import pytest

from dumps.postgres import chunks, load
from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.partition import plan_chunks
from dumps.postgres.publish import current
from dumps.postgres.runs import runs
from dumps.postgres.schema import prepare_schema
from dumps.postgres.server import embedded
from dumps.postgres.source import Source
from nearfield import api
from nearfield.errors import DatabaseError, DiskFull
from tests.dumps.postgres_case import ask, loadable_run, random_lists

pytestmark = pytest.mark.postgres
N, K = 4000, 4
ALONE = LoadOptions(connections=1, chunk_rows=1024)


@pytest.fixture
def new_run(tmp_path):
    return loadable_run(tmp_path / "new", n=N, k=K, seed=2)


def read_until(monkeypatch, row, then):
    """Let the load read lists up to a row, then call `then`; returns the rows it began at."""
    whole, begun = Source.lists, []

    def lists(self, rows, start=0, stop=None):
        begun.append(start)
        if start >= row:
            then()
        yield from whole(self, rows, start, stop)

    monkeypatch.setattr(Source, "lists", lists)
    return begun


def fail():
    raise DatabaseError("the connection is lost")


def all_lists(dsn):
    rows = ask(dsn, 'SELECT "row", neighbours, distances FROM nearfield.lists ORDER BY 1')
    assert [row for row, _, _ in rows] == list(range(len(rows)))
    return np.array([n for _, n, _ in rows], np.int32), np.array([d for *_, d in rows], np.float32)


def assert_whole(dsn):
    neighbours, distances = all_lists(dsn)
    expected = random_lists(N, K, 2)
    assert np.array_equal(neighbours, expected[0])
    assert distances.tobytes() == expected[1].tobytes()


def test_chunks_cover_every_row_once_and_are_few():
    for n in (1, 1024, 300_000, 4_000_000, 30_000_001):
        chunks = plan_chunks(n)
        assert [chunk.first for chunk in chunks] == [0, *(chunk.last for chunk in chunks[:-1])]
        assert (chunks[-1].last, len(chunks) <= 8) == (n, True)
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))


@pytest.mark.parametrize("connections", [1, 3])
def test_a_load_in_chunks_equals_the_matrix_bit_by_bit(new_run, dsn, connections):
    load_run(new_run, dsn, options=LoadOptions(connections=connections, chunk_rows=1000))
    assert ask(dsn, "SELECT count(*) FROM nearfield.load_chunks") == [(5,)]
    assert_whole(dsn)


def test_finished_chunks_arent_copied_again(new_run, dsn, monkeypatch):
    with monkeypatch.context() as patched:
        read_until(patched, 2048, fail)
        with pytest.raises(DatabaseError, match="lost"):
            load_run(new_run, dsn, options=ALONE)
    (left,) = runs(dsn)
    assert (left.state, left.rows) == ("interrupted", 2048)
    assert current(dsn) is None
    begun = read_until(monkeypatch, N, fail)
    report = load_run(new_run, dsn, options=ALONE)
    assert begun == [2048, 3072]
    assert (report.run_id, report.kept_rows, report.already_loaded) == (left.run_id, 2048, False)
    assert_whole(dsn)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM nearfield.neighbours_1_0 WHERE row = 7",
        "DROP TABLE nearfield.neighbours_1_1",
        "UPDATE nearfield.load_chunks SET first_row = 5 WHERE part = 'neighbours' AND chunk = 1",
    ],
)
def test_what_isnt_as_it_was_left_is_loaded_anew(new_run, dsn, monkeypatch, damage):
    with monkeypatch.context() as patched:
        read_until(patched, 2048, fail)
        with pytest.raises(DatabaseError):
            load_run(new_run, dsn, options=ALONE)
    ask(dsn, damage)
    assert load_run(new_run, dsn, options=ALONE).kept_rows == 0
    assert_whole(dsn)


def test_what_an_interrupted_load_has_left_goes_with_the_next_publication(
    tmp_path, new_run, dsn, monkeypatch
):
    with monkeypatch.context() as patched:
        read_until(patched, 1024, fail)
        with pytest.raises(DatabaseError):
            load_run(new_run, dsn, options=ALONE)
    other = load_run(loadable_run(tmp_path / "other", seed=3), dsn)
    assert (other.run_id, other.dropped_runs) == (2, (1,))
    assert ask(dsn, "SELECT relname FROM pg_class WHERE relname ~ '_1(_[0-9]+)?$'") == []


def test_a_backend_that_is_ended_in_its_copy_is_infrastructure_and_resumes(
    new_run, dsn, monkeypatch
):
    def end_the_others():
        ask(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()",
        )

    with monkeypatch.context() as patched:
        read_until(patched, 2048, end_the_others)
        with pytest.raises(DatabaseError, match="run the command again"):
            load_run(new_run, dsn, options=ALONE)
    assert current(dsn) is None
    assert load_run(new_run, dsn, options=ALONE).kept_rows == 2048
    assert_whole(dsn)


def test_a_server_killed_outright_keeps_the_chunks_that_were_committed(
    tmp_path, new_run, monkeypatch
):
    folder = tmp_path / "postgres"
    old = loadable_run(tmp_path / "old", seed=1)

    def kill():
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        children = psutil.Process(postmaster).children()
        os.kill(postmaster, signal.SIGKILL)
        for process in children:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    with embedded(folder) as dsn:
        load_run(old, dsn)
        with monkeypatch.context() as patched:
            read_until(patched, 2048, kill)
            with pytest.raises(DatabaseError, match=r"broke off.*again"):
                load_run(new_run, dsn, options=ALONE)
    with embedded(folder) as dsn:
        assert ask(dsn, "SELECT count(*) FROM nearfield.neighbours") == [(300,)]
        assert load_run(new_run, dsn, options=ALONE).kept_rows == 2048
        assert_whole(dsn)


def test_a_disk_that_fills_up_is_resumed_with_more_room(tmp_path, small_disk):
    place = small_disk(90 << 20)
    large = loadable_run(tmp_path / "large", n=60_000, k=100, seed=2)
    options = LoadOptions(connections=1, chunk_rows=10_240)
    with embedded(place / "postgres") as dsn:
        with pytest.raises(DiskFull, match="no room left"):
            load_run(large, dsn, options=options)
        subprocess.run(["mount", "-o", "remount,size=400m", place], check=True)
        report = load_run(large, dsn, options=options)
        assert report.kept_rows >= 10_240
        assert ask(dsn, "SELECT count(*) FROM nearfield.lists") == [(60_000,)]


def test_the_runs_own_full_disk_doesnt_undo_a_publication(tmp_path, dsn, small_disk, monkeypatch):
    place = small_disk(4 << 20)
    run = loadable_run(place, n=300)

    def fill_up():
        with (place / "filler").open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(4096)):
                pass

    read_until(monkeypatch, 0, fill_up)
    with pytest.raises(DiskFull, match="no room left"):
        api.load(run.path, dsn=dsn)
    assert current(dsn).n == 300
    # now there isn't room for a process id in the lock, either
    with pytest.raises(DiskFull, match="no room left"):
        api.load(run.path, dsn=dsn)
    (place / "filler").unlink()
    assert api.load(run.path, dsn=dsn).already_loaded


@pytest.mark.parametrize("name", ["neighbours_1_0", "recordings_1", "neighbours_1"])
def test_a_foreign_table_in_the_way_is_named_and_left_alone(new_run, dsn, name):
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        prepare_schema(cursor)
        connection.commit()
    ask(dsn, f"CREATE TABLE nearfield.{name} AS SELECT 42 AS theirs")
    with pytest.raises(DatabaseError, match=f'table that nearfield didn\'t make.*"{name}"'):
        load_run(new_run, dsn)
    assert ask(dsn, f"SELECT theirs FROM nearfield.{name}") == [(42,)]
    assert current(dsn) is None
    ask(dsn, f"DROP TABLE nearfield.{name}")
    load_run(new_run, dsn)
    assert_whole(dsn)


def test_a_reverse_index_is_used_and_can_be_added_later(new_run, dsn):
    load_run(new_run, dsn)
    call = "SELECT rank, recording_id, distance FROM nearfield.reverse_neighbours('id-7', 4000)"
    before = ask(dsn, call)
    neighbours, distances = random_lists(N, K, 2)
    rows, places = np.nonzero(neighbours == 7)
    order = np.lexsort((rows, distances[rows, places]))
    assert [name for _, name, _ in before] == [f"id-{row}" for row in rows[order]]
    assert [rank for rank, _, _ in before] == list(range(1, len(rows) + 1))
    assert load_run(new_run, dsn, options=LoadOptions(reverse_index=True)).already_loaded
    assert ask(dsn, call) == before
    question = "EXPLAIN SELECT * FROM nearfield.lists WHERE neighbours @> '{7}'"
    plan = ask(dsn, f"SET enable_seqscan = off; {question}")
    assert any("neighbours_1_0_reverse" in line for (line,) in plan), plan


def test_ctrl_c_before_the_last_connection_has_begun_ends_the_first(dsn, monkeypatch):
    work, begun = chunks._Work(), threading.Event()
    advance = work.counting(lambda _rows: None)

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *task):
            if not self._threads:
                return super().submit(*task)
            begun.wait(10)
            raise KeyboardInterrupt

    def sends(_connection):
        begun.set()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            advance(1)
            time.sleep(0.01)

    monkeypatch.setattr(chunks, "ThreadPoolExecutor", Interrupted)
    work.tasks += [sends, sends]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        chunks._work_off(dsn, work, 2)
    assert time.monotonic() - started < 10


def test_limits_of_a_server_for_its_other_users_end_no_load(dsn, new_run, monkeypatch):
    def counted(cursor, *_words):
        cursor.execute("SELECT pg_sleep(0.5)")

    for name in ("is_continuable", "check_loaded"):
        own = getattr(load, name)

        def slow(cursor, *words, own=own):
            counted(cursor)
            return own(cursor, *words)

        monkeypatch.setattr(load, name, slow)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER ROLE CURRENT_USER SET statement_timeout = '300ms'")
        connection.commit()
        try:
            assert load_run(new_run, dsn).rows == N
        finally:
            cursor.execute("ALTER ROLE CURRENT_USER RESET statement_timeout")
            connection.commit()
