"""docs/sql.md: statements run as a reader, answer rightly, keep to the keys where it says so."""

import re
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psycopg2
import pytest

from dumps.postgres.load import load_run
from dumps.postgres.server import embedded
from tests.dumps.postgres_case import ask, loadable_run, random_lists

pytestmark = pytest.mark.postgres
PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
N, K = 8000, 10
MINE, OTHER = 7, 8


def questions():
    """(number, whether its plan must use keys, statements) of every question on the page."""
    parts = re.split(r"^\*\*(\d+)\.", PAGE.read_text().split("\n## Errors")[0], flags=re.MULTILINE)
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        (code,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        statements = [part.strip() for part in code.split(";\n") if part.strip()]
        yield int(number), "*keys*" in text, statements


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A database with two runs of 8,000 x 10, the second published, and its lists."""
    folder = tmp_path_factory.mktemp("sql")
    labels = {
        "title": [f"Title {row}" for row in range(N)],
        "artist": [f"Artist {row % 50}" for row in range(N)],
    }
    with embedded(folder / "postgres") as dsn:
        for seed in (1, 2):
            run = loadable_run(folder / str(seed), n=N, k=K, seed=seed, labels=labels)
            load_run(run, dsn, force=True)
        yield dsn


@contextmanager
def as_reader(dsn):
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SET ROLE nearfield_read")
        cursor.execute(
            "CREATE TEMP TABLE my_playlist AS SELECT unnest(ARRAY['id-7', 'id-8']) AS recording_id"
        )
        cursor.execute("ANALYZE my_playlist")
        yield cursor


def filled_in(statement):
    return statement.replace("RECORDING_ID", f"id-{MINE}").replace("OTHER_ID", f"id-{OTHER}")


def answer(cursor, number):
    (statements,) = [each for found, _, each in questions() if found == number]
    cursor.execute(filled_in(statements[0]))
    return cursor.fetchall()


def test_there_are_twenty_questions_in_order():
    assert [number for number, _, _ in questions()] == list(range(1, 21))


def test_every_statement_runs_for_a_reader(loaded):
    with as_reader(loaded) as cursor:
        for number, _, statements in questions():
            for statement in statements:
                cursor.execute(filled_in(statement))
                found = cursor.fetchall()
                assert found or number in (9, 11, 15), number


def assert_keys_only(number, plan):
    """Every table of a run that the plan reads is the published one's, through an index."""
    scans = [
        line
        for line in plan
        if re.search(r"Scan.* on (neighbours|recordings)_\d", line) and "never executed" not in line
    ]
    assert scans, (number, plan)
    assert all("Index" in line for line in scans), (number, plan)
    assert not [line for line in scans if re.search(r" on \w+_1(_0)? ", line)], plan


def test_plans_use_the_keys_of_the_published_run(loaded):
    with as_reader(loaded) as cursor:
        for number, keys, statements in questions():
            if keys and "nearfield.similar_recordings(" not in statements[0] and number != 8:
                cursor.execute(
                    f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {filled_in(statements[0])}"
                )
                assert_keys_only(number, [line for (line,) in cursor.fetchall()])


def test_plans_inside_the_functions_use_the_keys_too(loaded):
    """EXPLAIN doesn't show them: the server's own module says what it ran."""
    with as_reader(loaded) as cursor:
        try:
            cursor.execute("RESET ROLE; LOAD 'auto_explain'")
        except psycopg2.errors.UndefinedFile:
            pytest.skip("this server comes without auto_explain")
        cursor.execute(
            "SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;"
            "SET auto_explain.log_analyze = on; SET client_min_messages = log;"
            "SET ROLE nearfield_read"
        )
        for number in (1, 8):
            cursor.connection.notices.clear()
            answer(cursor, number)
            plan = [line for text in cursor.connection.notices for line in text.splitlines()]
            assert any("Query Text: SELECT near.rank" in line for line in plan) == (number == 1)
            assert_keys_only(number, plan)


def test_the_answers_are_those_of_the_lists(loaded):
    neighbours, distances = random_lists(N, K, 2)
    mine, far = neighbours[MINE], distances[MINE]
    names = [f"id-{row}" for row in mine]
    sets = [set(row.tolist()) for row in neighbours]
    with as_reader(loaded) as cursor:
        assert [(row[0], row[1]) for row in answer(cursor, 1)] == [
            (place + 1, f"Title {row}") for place, row in enumerate(mine)
        ]
        assert [row[1] for row in answer(cursor, 2)] == names
        ((listed, dists),) = answer(cursor, 3)
        assert (listed, np.float32(dists).tobytes()) == (names, far.tobytes())
        assert answer(cursor, 5) == [(int((far <= 1.5).sum()),)]
        assert len(answer(cursor, 6)) == sum(int(row) % 50 != MINE % 50 for row in mine)
        assert len(answer(cursor, 7)) == len({int(row) % 50 for row in mine})
        common = sets[MINE] & sets[OTHER]
        assert {row[0] for row in answer(cursor, 9)} == {f"id-{row}" for row in common}
        ((share,),) = answer(cursor, 10)
        assert share == pytest.approx(len(common) / len(sets[MINE] | sets[OTHER]))
        mutual = {f"id-{row}" for row in mine if MINE in sets[row]}
        assert {row[1] for row in answer(cursor, 11)} == mutual
        naming = [row for row in range(N) if MINE in sets[row]]
        assert {row[1] for row in answer(cursor, 12)} <= {f"id-{row}" for row in naming}
        assert len(answer(cursor, 12)) == min(10, len(naming))
        counts = np.bincount(neighbours.ravel())
        assert [row[2] for row in answer(cursor, 13)] == sorted(counts, reverse=True)[:10]
        assert np.float32(answer(cursor, 14)[0][1]) == distances[:, 0].max()
        steps = answer(cursor, 16)
        assert [name for _, name in steps] == walk(neighbours)
        assert len(answer(cursor, 17)) == 10
        assert {row[0] for row in answer(cursor, 18)} <= {
            f"id-{row}" for row in sets[MINE] | sets[OTHER]
        }
        ((_, _, n, k, *_, recall, _, _),) = answer(cursor, 19)
        assert (n, k, recall) == (N, K, 0.97)
        assert len(answer(cursor, 20)) == 7


def walk(neighbours):
    played = [MINE]
    while len(played) <= 10:
        played.append(next(int(row) for row in neighbours[played[-1]] if row not in played))
    return [f"id-{row}" for row in played]


def test_every_object_of_the_table_exists_and_is_commented(loaded):
    for name in re.findall(r"^\| view `nearfield\.(\w+)`", PAGE.read_text(), re.MULTILINE):
        (found,) = ask(loaded, "SELECT obj_description(to_regclass(%s))", f"nearfield.{name}")
        assert found[0], name
