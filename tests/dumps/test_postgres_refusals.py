"""Missing rights, foreign schemas, servers that aren't there: each is named, nothing is touched."""

from pathlib import Path

import pytest

from dumps.postgres.load import load_run
from dumps.postgres.publish import current, publish, rollback
from dumps.postgres.retention import prune
from dumps.postgres.rights import rights
from dumps.postgres.schema import SCHEMA_VERSION
from dumps.postgres.server import embedded
from nearfield.errors import DatabaseError, UsageError
from tests.dumps.postgres_case import ask, loadable_run

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]


def test_a_role_without_rights_is_told_which_grant_it_needs(tmp_path, dsn):
    ask(dsn, "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    poor = dsn.replace("user=nearfield", "user=poor")
    with pytest.raises(DatabaseError, match="GRANT CREATE, TEMPORARY ON DATABASE"):
        load_run(loadable_run(tmp_path), poor)
    found = rights(poor)
    assert (found.user, found.superuser, found.may_load) == ("poor", False, False)
    assert found.temporary
    assert not found.sees_readers
    whole = rights(dsn)
    assert whole.may_load
    assert whole.temporary
    assert whole.read_role
    assert whole.sees_readers


def test_rights_that_an_administrator_took_away_are_missed(dsn, monkeypatch):
    monkeypatch.setattr("dumps.postgres.rights.READ_ROLE", "nearfield_read_elsewhere")
    ask(dsn, "DROP ROLE IF EXISTS bare; CREATE ROLE bare LOGIN")
    ask(dsn, "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC',"
        " current_database()); END $$")  # fmt: skip
    found = rights(dsn.replace("user=nearfield", "user=bare"))
    assert not found.temporary
    assert not found.read_role


def test_a_loader_set_up_by_roles_sql_needs_no_more(tmp_path, dsn):
    statements = (ROOT / "deploy" / "postgres" / "roles.sql").read_text()
    ask(dsn, "DROP ROLE IF EXISTS nearfield_load")
    if ask(dsn, "SELECT 1 FROM pg_roles WHERE rolname = 'nearfield_read'"):
        statements = statements.replace("CREATE ROLE nearfield_read NOLOGIN;", "")
    ask(dsn, statements)
    loader = dsn.replace("user=nearfield", "user=nearfield_load")
    assert load_run(loadable_run(tmp_path), loader).notes == ()
    assert ask(loader, "SET ROLE NONE; SELECT count(*) FROM nearfield.neighbours") == [(300,)]
    assert (rights(loader).may_load, rights(loader).schema_version) == (True, SCHEMA_VERSION)
    assert rights(loader).temporary
    assert rights(loader).sees_readers
    # a foreigner who may create schemas still isn't the owner of this one
    ask(dsn, "DROP ROLE IF EXISTS other; CREATE ROLE other LOGIN")
    ask(dsn, "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO other',"
        " current_database()); END $$")  # fmt: skip
    foreigner = rights(dsn.replace("user=nearfield", "user=other"))
    assert (foreigner.may_load, foreigner.schema_owner) == (False, "nearfield_load")
    with pytest.raises(DatabaseError, match="owns the schema nearfield"):
        load_run(loadable_run(tmp_path / "2", seed=2), dsn.replace("user=nearfield", "user=other"))
    ask(dsn, "DROP OWNED BY nearfield_load, other CASCADE; DROP ROLE nearfield_load, other")


def test_a_reader_may_neither_publish_nor_go_back_nor_prune(tmp_path, dsn):
    ids = [load_run(loadable_run(tmp_path / str(s), seed=s), dsn).run_id for s in (1, 2)]
    ask(dsn, "DROP ROLE IF EXISTS curious; CREATE ROLE curious LOGIN IN ROLE nearfield_read")
    reader = dsn.replace("user=nearfield", "user=curious")
    for forbidden in (lambda: publish(reader, ids[0]), lambda: rollback(reader),
                      lambda: prune(reader, keep=1)):  # fmt: skip
        with pytest.raises(DatabaseError, match="owns the schema nearfield"):
            forbidden()
    assert current(dsn).run_id == ids[1]
    assert ask(reader, "SELECT count(*) FROM nearfield.neighbours") == [(300,)]


def test_where_no_role_can_be_made_a_note_says_so(tmp_path, dsn, monkeypatch):
    monkeypatch.setattr("dumps.postgres.schema.READ_ROLE", "nearfield_read_elsewhere")
    ask(dsn, "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    ask(dsn, "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO plain',"
        " current_database()); END $$")  # fmt: skip
    report = load_run(loadable_run(tmp_path), dsn.replace("user=nearfield", "user=plain"))
    assert "CREATE ROLE" in report.notes[0]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE SCHEMA nearfield; CREATE TABLE nearfield.neighbours ()", "didn't make"),
        (
            "CREATE SCHEMA nearfield;"
            " CREATE TABLE nearfield.schema_version AS SELECT 99 AS version",
            "use a newer nearfield",
        ),
    ],
)
def test_a_schema_that_isnt_ours_is_left_alone(tmp_path, dsn, statement, message):
    ask(dsn, statement)
    with pytest.raises(UsageError, match=message):
        load_run(loadable_run(tmp_path), dsn)


@pytest.mark.parametrize(
    ("dsn", "error", "message"),
    [
        ("host=/nowhere dbname=x password=hunter2", DatabaseError, "Is the server running"),
        ("postgresql://u:hunter2@127.0.0.1:1/x", DatabaseError, "Is the server running"),
        ("host=/nowhere passwort=hunter2", UsageError, "can't be parsed"),
    ],
)
def test_no_server_or_no_dsn_is_said_without_the_password(tmp_path, dsn, error, message):
    with pytest.raises(error, match=message) as raised:
        load_run(loadable_run(tmp_path), dsn)
    assert "hunter2" not in str(raised.value)


def test_a_wrong_password_and_a_missing_database_come_with_advice(tmp_path):
    folder = tmp_path / "postgres"
    run = loadable_run(tmp_path)
    with embedded(folder) as dsn:
        ask(dsn, "CREATE ROLE guarded LOGIN PASSWORD 'right'")
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text("local all guarded scram-sha-256\n" + hba.read_text())
        ask(dsn, "SELECT pg_reload_conf()")
        guarded = dsn.replace("user=nearfield", "user=guarded")
        for given in (" password=wrong", ""):
            with pytest.raises(DatabaseError, match="pgpass") as raised:
                load_run(run, guarded + given)
            assert "wrong" not in str(raised.value)
        with pytest.raises(DatabaseError, match="Create it"):
            load_run(run, dsn.replace("dbname=postgres", "dbname=absent"))
