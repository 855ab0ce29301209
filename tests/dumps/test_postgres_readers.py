"""What SQL users see: views, functions, rights, and the moment of publication."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import psycopg2
import pytest

from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.publish import current, publish, rollback
from dumps.postgres.query import similar
from dumps.postgres.retention import prune
from dumps.postgres.runs import runs
from nearfield.errors import InputRejected, UsageError
from tests.dumps.postgres_case import ask, loadable_run, random_lists

pytestmark = pytest.mark.postgres
COUNT_OF_ID_0 = "SELECT distances FROM nearfield.neighbours WHERE recording_id = 'id-0'"


@pytest.fixture
def two_runs(tmp_path, dsn):
    """Run 1 loaded first, run 2 published over it."""
    return [load_run(loadable_run(tmp_path / str(seed), seed=seed), dsn).run_id for seed in (1, 2)]


def distances(seed):
    return random_lists(300, 5, seed)[1][0].tolist()


def test_views_show_the_matrix(tmp_path, dsn):
    load_run(loadable_run(tmp_path, n=40, k=7, seed=3), dsn)
    neighbours, dists = random_lists(40, 7, 3)
    for recording_id, ids, found in ask(dsn, "SELECT * FROM nearfield.neighbours"):
        row = int(recording_id.removeprefix("id-"))
        assert ids == [f"id-{other}" for other in neighbours[row]]
        assert np.array_equal(np.float32(found), dists[row])
    flat = ask(dsn, "SELECT * FROM nearfield.neighbours_flat ORDER BY recording_id, rank")
    expected = sorted(
        (f"id-{row}", place + 1, f"id-{neighbours[row, place]}", dists[row, place])
        for row in range(40)
        for place in range(7)
    )
    assert [(a, r, b, np.float32(d)) for a, r, b, d in flat] == expected


def test_similar_recordings_gives_the_first_k_with_their_labels(tmp_path, dsn):
    titles = [f"title {i}" for i in range(300)]
    load_run(loadable_run(tmp_path, labels={"title": titles}), dsn)
    neighbours, dists = random_lists(300, 5, 0)
    found = similar(dsn, "id-7", 3)
    assert [item.rank for item in found] == [1, 2, 3]
    assert [item.recording_id for item in found] == [f"id-{row}" for row in neighbours[7, :3]]
    assert np.array_equal(np.float32([item.distance for item in found]), dists[7, :3])
    assert [item.labels for item in found] == [{"title": titles[row]} for row in neighbours[7, :3]]


def test_asking_for_more_than_there_are_gives_all(tmp_path, dsn):
    load_run(loadable_run(tmp_path, k=5), dsn)
    assert len(similar(dsn, "id-7", 1000)) == len(similar(dsn, "id-7", 10**12)) == 5


def test_arguments_have_the_names_that_are_documented(tmp_path, dsn):
    load_run(loadable_run(tmp_path), dsn)
    call = "SELECT rank FROM nearfield.similar_recordings(recording_id => 'id-7', k => 2)"
    assert ask(dsn, call) == [(1,), (2,)]
    assert ask(dsn, "SELECT nearfield.distance_between(a => 'id-7', b => 'id-7')") == [(None,)]


@pytest.mark.parametrize(
    ("recording_id", "k", "message"),
    [
        ("nobody", 3, "unknown recording: 'nobody'"),
        ("x'; DROP TABLE t; --", 3, "unknown recording"),
        ("a\0b", 3, "unknown recording"),
        ("half \ud800", 3, "unknown recording"),
        ("id-7", 0, "k >= 1"),
        ("id-7", -1, "k >= 1"),
    ],
)
def test_a_wrong_question_gets_a_clear_answer(tmp_path, dsn, recording_id, k, message):
    load_run(loadable_run(tmp_path), dsn)
    with pytest.raises(InputRejected, match=message):
        similar(dsn, recording_id, k)


def test_errors_have_their_own_sqlstate(tmp_path, dsn):
    load_run(loadable_run(tmp_path), dsn)
    for statement, code in (
        ("SELECT nearfield.similar_recordings('nobody', 3)", "NF001"),
        ("SELECT nearfield.similar_recordings(NULL, 3)", "NF001"),
        ("SELECT nearfield.similar_recordings('id-7', 0)", "NF002"),
        ("SELECT nearfield.distance_between('id-7', 'nobody')", "NF001"),
        ("SELECT nearfield.distance_between('nobody', 'id-7')", "NF001"),
    ):
        with pytest.raises(psycopg2.Error) as raised:
            ask(dsn, statement)
        assert raised.value.pgcode == code


def test_before_the_first_publication_the_answer_says_so(tmp_path, dsn):
    load_run(loadable_run(tmp_path), dsn)
    ask(dsn, "UPDATE nearfield.current_run SET run_id = NULL")
    assert current(dsn) is None
    assert ask(dsn, "SELECT count(*) FROM nearfield.neighbours_flat") == [(0,)]
    with pytest.raises(UsageError, match="nearfield load"):
        similar(dsn, "id-7", 3)


def test_a_database_without_a_load_is_named_as_such(dsn):
    with pytest.raises(UsageError, match="nearfield load"):
        similar(dsn, "id-7", 3)


def test_distance_between_is_read_from_either_list(tmp_path, dsn):
    load_run(loadable_run(tmp_path), dsn)
    neighbours, dists = random_lists(300, 5, 0)
    near = int(neighbours[7, 2])
    assert 7 not in neighbours[near]
    call = "SELECT nearfield.distance_between(%s, %s)"
    for pair in ((f"id-{near}", "id-7"), ("id-7", f"id-{near}")):
        assert np.float32(ask(dsn, call, *pair)[0][0]) == dists[7, 2]
    far = next(r for r in range(8, 300) if r not in neighbours[7] and 7 not in neighbours[r])
    assert ask(dsn, call, "id-7", f"id-{far}") == [(None,)]


def test_publishing_and_going_back_move_every_view_at_once(dsn, two_runs):
    first, second = two_runs
    assert current(dsn).run_id == second
    assert ask(dsn, COUNT_OF_ID_0)[0][0] == pytest.approx(distances(2))
    assert rollback(dsn).run_id == first
    assert ask(dsn, COUNT_OF_ID_0)[0][0] == pytest.approx(distances(1))
    with pytest.raises(UsageError, match="no earlier"):
        rollback(dsn)
    assert publish(dsn, second).run_id == second
    with pytest.raises(UsageError, match="isn't loaded"):
        publish(dsn, 99)
    assert current(dsn).run_id == second


def test_an_open_snapshot_keeps_its_run_and_nobody_waits(dsn, two_runs):
    reader = psycopg2.connect(dsn)
    reader.set_session(isolation_level="REPEATABLE READ")
    committed = psycopg2.connect(dsn)
    with reader.cursor() as snapshot, committed.cursor() as fresh:
        for cursor in (snapshot, fresh):
            cursor.execute("SET lock_timeout = '1s'")
            cursor.execute(COUNT_OF_ID_0)
            assert cursor.fetchone()[0] == pytest.approx(distances(2))
        rollback(dsn)  # both transactions are open; this mustn't wait
        snapshot.execute(COUNT_OF_ID_0)
        assert snapshot.fetchone()[0] == pytest.approx(distances(2))
        fresh.execute(COUNT_OF_ID_0)
        assert fresh.fetchone()[0] == pytest.approx(distances(1))
    reader.close()
    committed.close()


def test_a_load_beside_an_open_reader_neither_waits_nor_disturbs(tmp_path, dsn, two_runs):
    reader = psycopg2.connect(dsn)
    with reader.cursor() as cursor:
        cursor.execute(COUNT_OF_ID_0)
        load_run(loadable_run(tmp_path / "3", seed=3), dsn)
        cursor.execute("SET lock_timeout = '1s'")
        cursor.execute(COUNT_OF_ID_0)
        assert cursor.fetchone()[0] == pytest.approx(distances(3))
    reader.close()


def test_a_prepared_statement_follows_the_publication(dsn, two_runs):
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE look AS {COUNT_OF_ID_0.replace(chr(39) + 'id-0' + chr(39), '$1')}")
        for seed in (2, 1):
            cursor.execute("EXECUTE look('id-0')")
            assert cursor.fetchone()[0] == pytest.approx(distances(seed))
            if seed == 2:
                rollback(dsn)
    connection.close()


def test_only_the_runs_that_a_rollback_needs_are_kept(tmp_path, dsn):
    reports = [
        load_run(loadable_run(tmp_path / str(seed), seed=seed, n=50), dsn) for seed in range(5)
    ]
    ids = [report.run_id for report in reports]
    assert [report.dropped_runs for report in reports] == [(), (), (), (ids[0],), (ids[1],)]
    tables = ask(dsn, "SELECT relname FROM pg_class WHERE relname ~ '^neighbours_[0-9]+$'")
    assert sorted(tables) == sorted((f"neighbours_{run_id}",) for run_id in ids[2:])
    rollback(dsn)
    assert prune(dsn, keep=1).dropped == [ids[2], ids[4]]
    assert current(dsn).run_id == ids[3]


def test_a_run_that_is_still_read_is_dropped_by_a_later_call(tmp_path, dsn, two_runs, monkeypatch):
    monkeypatch.setattr("dumps.postgres.retention.WAIT_S", 0.2)
    reader = psycopg2.connect(dsn)
    with reader.cursor() as cursor:
        cursor.execute(COUNT_OF_ID_0)
        assert prune(dsn, keep=1).still_read == [two_runs[0]]
        assert ask(dsn, COUNT_OF_ID_0)
    reader.close()
    assert prune(dsn, keep=1).dropped == [two_runs[0]]


def test_a_removal_that_waits_for_readers_holds_up_no_other_for_good(
    tmp_path, dsn, two_runs, monkeypatch
):
    monkeypatch.setattr("dumps.postgres.retention.WAIT_S", 0.2)
    third = load_run(loadable_run(tmp_path / "3", seed=3), dsn).run_id
    with closing(psycopg2.connect(dsn)) as reader, reader.cursor() as cursor:
        cursor.execute(COUNT_OF_ID_0)
        # the second can't be begun before the first is through
        assert prune(dsn, keep=1).still_read == two_runs
    assert prune(dsn, keep=1).dropped == two_runs
    assert current(dsn).run_id == third


def test_what_was_begun_is_removed_first(tmp_path, dsn, two_runs, monkeypatch):
    monkeypatch.setattr("dumps.postgres.retention.WAIT_S", 0.2)
    rollback(dsn)
    with closing(psycopg2.connect(dsn)) as reader, reader.cursor() as cursor:
        cursor.execute(COUNT_OF_ID_0)
        assert prune(dsn, keep=1).still_read == [two_runs[1]]
    load_run(loadable_run(tmp_path / "3", seed=3), dsn, options=LoadOptions(keep=3))
    assert sorted(prune(dsn, keep=1).dropped) in (two_runs, two_runs[:1])
    assert [run.run_id for run in runs(dsn)] == [3]


def test_two_rollbacks_at_once_go_back_twice(tmp_path, dsn, two_runs):
    load_run(loadable_run(tmp_path / "3", seed=3), dsn)
    with closing(psycopg2.connect(dsn)) as other, ThreadPoolExecutor(2) as pool:
        with other.cursor() as cursor:
            cursor.execute("SELECT FROM nearfield.current_run FOR UPDATE")
        going = [pool.submit(rollback, dsn) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until = time.monotonic() + 20
        while ask(dsn, waiting) != [(2,)] and time.monotonic() < until:
            time.sleep(0.05)
        other.rollback()
        assert sorted(one.result().run_id for one in going) == two_runs
    assert current(dsn).run_id == two_runs[0]


def test_the_read_role_reads_views_and_functions_and_nothing_else(dsn, two_runs):
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE nearfield_read")
        for name in ("recordings", "neighbours", "neighbours_flat"):
            cursor.execute(f"SELECT * FROM nearfield.{name} LIMIT 1")
            assert cursor.fetchall()
        cursor.execute("SELECT * FROM nearfield.similar_recordings('id-7', 2)")
        assert len(cursor.fetchall()) == 2
        cursor.execute("SELECT nearfield.distance_between('id-7', 'id-8')")
        for statement in (
            "SELECT * FROM nearfield.neighbours_all",
            "SELECT * FROM nearfield.recordings_all",
            f"SELECT * FROM nearfield.neighbours_{two_runs[0]}",
            "SELECT * FROM nearfield.runs",
            "UPDATE nearfield.current_run SET run_id = 1",
            "DELETE FROM nearfield.recordings",
            "CREATE TABLE nearfield.mine ()",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    connection.close()


def test_others_may_not_even_call_the_functions(dsn, two_runs):
    ask(dsn, "DROP ROLE IF EXISTS stranger")
    ask(dsn, "CREATE ROLE stranger")
    ask(dsn, "GRANT USAGE ON SCHEMA nearfield TO stranger")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(dsn, "SET ROLE stranger; SELECT nearfield.distance_between('id-7', 'id-8')")
    ask(dsn, "DROP OWNED BY stranger; DROP ROLE stranger")


def test_lookups_use_the_keys_of_the_published_run_only(tmp_path, dsn):
    for seed in (1, 2):
        load_run(loadable_run(tmp_path / str(seed), n=20_000, k=20, seed=seed), dsn, force=True)
    for statement in (
        "SELECT * FROM nearfield.neighbours WHERE recording_id = 'id-7'",
        "SELECT * FROM nearfield.neighbours_flat WHERE recording_id = 'id-7'",
        "SELECT * FROM nearfield.neighbours_flat AS f JOIN nearfield.recordings AS r"
        " ON r.recording_id = f.neighbour_id WHERE f.recording_id = 'id-7' AND rank <= 10",
        "SELECT * FROM nearfield.recordings WHERE recording_id = 'id-7'",
    ):
        plan = [line for (line,) in ask(dsn, f"EXPLAIN (ANALYZE, COSTS OFF) {statement}")]
        scans = [line for line in plan if "Scan" in line and "current_run" not in line]
        run = [line for line in scans if "_2" in line and "never executed" not in line]
        assert run, plan
        assert all("Index" in line for line in run), plan
        old = [line for line in scans if "recordings_1 " in line or "neighbours_1 " in line]
        assert all("never executed" in line for line in old), plan


def test_every_object_and_column_is_described(dsn, two_runs):
    silent = ask(
        dsn,
        "SELECT c.relname, a.attname FROM pg_class AS c"
        " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relnamespace = 'nearfield'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c')"
        " AND NOT c.relispartition"
        " AND (col_description(c.oid, a.attnum) IS NULL OR (c.relkind <> 'c' AND"
        "      obj_description(c.oid, 'pg_class') IS NULL))"
        " UNION ALL SELECT proname, NULL FROM pg_proc"
        " WHERE pronamespace = 'nearfield'::regnamespace"
        " AND obj_description(oid, 'pg_proc') IS NULL",
    )
    assert silent == []
