"""A database of an older nearfield: its data and its readers go on, its schema becomes ours."""

from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg2
import pytest

from dumps.postgres.load import load_run
from dumps.postgres.publish import current, publish, rollback
from dumps.postgres.retention import prune
from dumps.postgres.rights import rights
from dumps.postgres.runs import runs
from dumps.postgres.schema import SCHEMA_VERSION, migrations
from nearfield.errors import DatabaseError, UsageError
from tests.dumps.postgres_case import ask, loadable_run, random_lists

pytestmark = pytest.mark.postgres
GOLDEN = Path(__file__).parent / "golden" / "postgres-v1.sql"
LOOK = "SELECT neighbour_ids, distances FROM nearfield.neighbours WHERE recording_id = 'id-7'"


@pytest.fixture
def version_1(dsn):
    """Two runs of 12 x 3, loaded with schema version 1 and dumped by pg_dump; 2 is current."""
    if not ask(dsn, "SELECT 1 FROM pg_roles WHERE rolname = 'nearfield_read'"):
        ask(dsn, "CREATE ROLE nearfield_read")
    ask(dsn, GOLDEN.read_text())
    return dsn


def expected(seed):
    neighbours, distances = random_lists(12, 3, seed)
    return [f"id-{row}" for row in neighbours[7]], distances[7].tolist()


def seen(cursor):
    cursor.execute(LOOK)
    ids, distances = cursor.fetchone()
    return ids, np.float32(distances).tolist()


def test_data_and_open_readers_go_on_through_the_migration(version_1):
    with closing(psycopg2.connect(version_1)) as reader, reader.cursor() as cursor:
        reader.set_session(isolation_level="REPEATABLE READ")
        cursor.execute("SET ROLE nearfield_read; SET lock_timeout = '1s'")
        assert seen(cursor) == expected(2)
        assert rollback(version_1).run_id == 1  # migrates; the reader's transaction is open
        assert seen(cursor) == expected(2)
        reader.rollback()
        cursor.execute("SET ROLE nearfield_read")
        assert seen(cursor) == expected(1)
        cursor.execute("SELECT run_id, is_current, recall FROM nearfield.run ORDER BY 1")
        assert cursor.fetchall() == [(1, True, 0.97), (2, False, 0.97)]
        cursor.execute("SELECT recording_id FROM nearfield.reverse_neighbours('id-7', 12)")
        near = random_lists(12, 3, 1)[0]
        assert {name for (name,) in cursor.fetchall()} == {
            f"id-{row}" for row in range(12) if 7 in near[row]
        }
    assert rights(version_1).schema_version == SCHEMA_VERSION


def test_its_runs_are_listed_published_and_pruned_like_others(tmp_path, version_1):
    with pytest.raises(UsageError, match="brings it up to date"):
        runs(version_1)
    assert publish(version_1, 1).failed_gates == ()
    assert [(run.run_id, run.state, run.rows) for run in runs(version_1)] == [
        (1, "current", 12),
        (2, "loaded", 12),
    ]
    loaded = load_run(loadable_run(tmp_path, n=12, k=3, seed=3), version_1)
    assert (loaded.run_id, current(version_1).run_id) == (3, 3)
    assert prune(version_1, keep=1).dropped == [1, 2]
    assert ask(version_1, "SELECT count(*) FROM nearfield.neighbours") == [(12,)]
    left = "SELECT 1 FROM pg_class WHERE relname IN ('neighbours_1', 'recordings_2')"
    assert not ask(version_1, left)


def test_a_note_tells_the_loader_that_the_schema_was_migrated(tmp_path, version_1):
    report = load_run(loadable_run(tmp_path, n=12, k=3, seed=3), version_1)
    assert report.notes == (f"the schema was version 1: now {SCHEMA_VERSION}",)


DESCRIPTION = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'nearfield' AND table_name !~ '_[0-9]'
UNION ALL SELECT viewname, definition, '', '', '' FROM pg_views WHERE schemaname = 'nearfield'
UNION ALL SELECT proname, prosrc, proacl::text, '', '' FROM pg_proc
    WHERE pronamespace = 'nearfield'::regnamespace
UNION ALL SELECT relname, relacl::text, '', '', '' FROM pg_class
    WHERE relnamespace = 'nearfield'::regnamespace AND relkind IN ('r', 'v', 'p')
    AND relname !~ '_[0-9]'
ORDER BY 1, 2
"""


def test_a_migrated_schema_is_the_same_as_a_new_one(tmp_path, version_1):
    rollback(version_1)
    migrated = ask(version_1, DESCRIPTION)
    ask(version_1, "DROP SCHEMA nearfield CASCADE")
    load_run(loadable_run(tmp_path), version_1)
    assert ask(version_1, DESCRIPTION) == migrated


def test_a_run_that_was_rolled_back_right_after_a_migration_is_not_gone_back_to(version_1):
    assert prune(version_1, keep=9, dry_run=True).kept == [1, 2]
    assert rollback(version_1).run_id == 1
    with pytest.raises(UsageError, match="no earlier published run"):
        rollback(version_1)


def test_migrations_are_numbered_without_a_gap():
    assert [version for version, _ in migrations(0)] == list(range(1, SCHEMA_VERSION + 1))


def test_only_the_owner_migrates_and_is_named(version_1):
    ask(version_1, "DROP ROLE IF EXISTS visitor; CREATE ROLE visitor LOGIN")
    ask(version_1, "GRANT USAGE ON SCHEMA nearfield TO visitor")
    ask(version_1, "GRANT SELECT ON nearfield.schema_version TO visitor")
    with pytest.raises(DatabaseError, match="takes its owner: connect as nearfield"):
        rollback(version_1.replace("user=nearfield", "user=visitor"))
    ask(version_1, "DROP OWNED BY visitor; DROP ROLE visitor")


def test_a_newer_schema_is_refused_by_every_command(dsn):
    ask(dsn, "CREATE SCHEMA nearfield")
    ask(dsn, "CREATE TABLE nearfield.schema_version AS SELECT 99 AS version")
    for command in (runs, rollback, prune, current, lambda dsn: publish(dsn, 1)):
        with pytest.raises(UsageError, match=r"version 99.*use a newer nearfield"):
            command(dsn)
