"""A connection that is lost, anywhere: an error that says to run again, and then it converges."""

import socket
import threading
from contextlib import contextmanager, suppress

import psycopg2
import pytest

from dumps.postgres import publish as publishing
from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.publish import current, publish, rollback
from nearfield.errors import DatabaseError
from tests.dumps.postgres_case import ask, loadable_run

pytestmark = pytest.mark.postgres
ALONE = LoadOptions(connections=1, chunk_rows=1024)


@contextmanager
def cut_after(dsn, folder, amount):
    """A DSN of the same server through a line that breaks after so many bytes were sent."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    name = f".s.PGSQL.{parts.get('port', 5432)}"
    ends: list[socket.socket] = []
    sent = 0

    def carry(source, target, counted):
        nonlocal sent
        with suppress(OSError):
            while content := source.recv(65_536):
                sent += len(content) if counted else 0
                if sent > amount:
                    break
                target.sendall(content)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / name))
        listening.listen()

        def serve():
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(f"{parts['host']}/{name}")
                    ends.extend((client, server))
                    for way in ((client, server, True), (server, client, False)):
                        threading.Thread(target=carry, args=way, daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield psycopg2.extensions.make_dsn(dsn, host=str(folder))
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for end in ends:
                # who still waits for something on it wouldn't notice that it is closed
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


@pytest.mark.parametrize("amount", [0, 3_000, 100_000, 400_000])
def test_a_line_that_breaks_while_loading_is_said_and_the_next_load_goes_on(tmp_path, dsn, amount):
    old = load_run(loadable_run(tmp_path / "old", seed=1), dsn)
    run = loadable_run(tmp_path / "new", n=6000, k=10, seed=2)
    with (
        cut_after(dsn, tmp_path, amount) as line,
        pytest.raises(DatabaseError, match=r"again|Is the server running") as raised,
    ):
        load_run(run, line, options=ALONE)
    assert raised.value.exit_code == 5
    assert current(dsn).run_id == old.run_id
    report = load_run(run, dsn, options=ALONE)
    assert (report.kept_rows > 0) == (amount == 400_000)
    assert current(dsn).run_id == report.run_id
    assert ask(dsn, "SELECT count(*) FROM nearfield.lists") == [(6000,)]


@pytest.fixture
def two_runs(tmp_path, dsn):
    return [load_run(loadable_run(tmp_path / str(s), seed=s), dsn).run_id for s in (1, 2)]


def end_everybody(dsn):
    ask(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@pytest.mark.parametrize(
    ("move", "step"), [("publish", "measure"), ("publish", "_point_to"), ("rollback", "_point_to")]
)
def test_readers_keep_what_they_have_when_a_publication_breaks_off(
    dsn, two_runs, monkeypatch, move, step
):
    whole = getattr(publishing, step)

    def broken(*arguments, **options):
        result = whole(*arguments, **options)
        end_everybody(dsn)
        return result

    def go():
        return publish(dsn, two_runs[0]) if move == "publish" else rollback(dsn)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, step, broken)
        with pytest.raises(DatabaseError, match="again"):
            go()
    assert current(dsn).run_id == two_runs[1]
    assert go().run_id == two_runs[0]
    moves = ask(dsn, "SELECT action FROM nearfield.publications ORDER BY published_at")
    assert moves == [("publish",), ("publish",), (move,)], "what was undone isn't recorded"
