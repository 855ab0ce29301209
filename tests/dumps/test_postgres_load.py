"""The load: what arrives is what the file holds, or nobody sees it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psycopg2
import pytest

from dumps.postgres import partition
from dumps.postgres.load import load_run
from dumps.postgres.publish import current
from dumps.postgres.runs import runs
from dumps.postgres.server import embedded
from dumps.postgres.source import Source
from nearfield.errors import (
    DamagedArtefact,
    DatabaseError,
    DiskFull,
    QualityGate,
    RunLocked,
    UsageError,
)
from nearfield.manifest import write_manifest
from tests.dumps.postgres_case import ask, loadable_run, random_lists, sockets_of, write_verdict

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]
STUCK_LOAD = """
import sys, time
from pathlib import Path
from dumps.postgres import partition
from dumps.postgres.load import load_run
from dumps.postgres.source import Source
from nearfield.run import open_run
whole = Source.lists
def stuck(self, rows, start=0, stop=None):
    block = next(whole(self, 1024, start, stop))
    yield block
    print("in the middle", flush=True)
    while True:
        time.sleep(0.05)
        yield block
Source.lists = stuck
load_run(open_run(Path(sys.argv[1])), sys.argv[2])
"""


def stuck_load(run, dsn):
    """A process that stands in the middle of its COPY."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK_LOAD, run.path, dsn],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout.readline() == "in the middle\n"
    process.stdout.close()
    return process


def tables(dsn):
    return {
        name
        for (name,) in ask(dsn, "SELECT relname FROM pg_class WHERE relname ~ '_[0-9]+$'")
        if name.startswith(("neighbours_", "recordings_"))
    }


def rows_seen(dsn):
    return ask(dsn, "SELECT count(*) FROM nearfield.neighbours")[0][0]


def rewrite_matrix(run, change):
    """Change the matrix file and give it a manifest and a verification that agree with it."""
    with h5py.File(run.matrix, "r+") as file:
        change(file)
    write_manifest(
        run.path / "matrix.json", kind="matrix", fingerprint=run.config.fingerprint,
        format_version=1, files=["matrix.h5"], facts={},
    )  # fmt: skip
    write_verdict(run)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (1030, 1), (3000, 33), (40, 39), (300, 299)])
def test_every_bit_of_the_matrix_arrives(tmp_path, dsn, n, k):
    report = load_run(loadable_run(tmp_path, n=n, k=k), dsn)
    neighbours, distances = random_lists(n, k, 0)
    rows = ask(dsn, 'SELECT "row", neighbours, distances FROM nearfield.neighbours_all ORDER BY 1')
    assert [row for row, _, _ in rows] == list(range(n))
    assert np.array_equal(np.array([found for _, found, _ in rows]), neighbours)
    assert np.array([d for _, _, d in rows], np.float32).tobytes() == distances.tobytes()
    assert (report.rows, report.already_loaded, report.forced) == (n, False, False)
    assert report.bytes > 16 * n * k


def test_blocks_that_dont_divide_n_lose_no_row(tmp_path, dsn, monkeypatch):
    monkeypatch.setattr(partition, "BLOCK_BYTES", 1)
    load_run(loadable_run(tmp_path, n=2500, k=3), dsn)
    assert ask(dsn, 'SELECT count(*), sum("row") FROM nearfield.neighbours_all') == [
        (2500, 2500 * 2499 // 2)
    ]


def test_labels_of_every_kind_survive(tmp_path, dsn):
    titles = ['say "hi"', "back\\slash", "two\nlines, a comma", "ünï – 😀", "", None, "nul\0here"]
    labels = {"title": titles, "year": [1, 2, None, 4, 5, None, 7], "share": [0.5] * 7}
    load_run(loadable_run(tmp_path, n=7, k=2, labels=labels), dsn)
    rows = [row for (row,) in ask(dsn, "SELECT labels FROM nearfield.recordings ORDER BY row")]
    assert [row.get("title") for row in rows] == [*titles[:6], "nul\ufffdhere"]
    assert [row.get("year") for row in rows] == labels["year"]
    assert rows[5] == {"share": 0.5}


def test_ids_may_be_numbers_or_awkward_text(tmp_path, dsn):
    numbers = [2**62 + i for i in range(5)]
    load_run(loadable_run(tmp_path / "numbers", n=5, k=2, ids=numbers), dsn)
    call = "SELECT recording_id FROM nearfield.recordings ORDER BY row"
    assert [value for (value,) in ask(dsn, call)] == [str(number) for number in numbers]
    text = ['a "b"', "c,d", "é\n", "NULL", "\\N"]
    load_run(loadable_run(tmp_path / "text", n=5, k=2, ids=text), dsn)
    assert [value for (value,) in ask(dsn, call)] == text


def test_without_labels_ids_come_from_the_matrix_alone(tmp_path, dsn):
    run = loadable_run(tmp_path, labels={"title": ["x"] * 300})
    (tmp_path / "vectors" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="--no-labels"):
        load_run(run, dsn)
    load_run(run, dsn, labels=False)
    assert ask(dsn, "SELECT recording_id, labels FROM nearfield.recordings WHERE row = 7") == [
        ("id-7", {})
    ]


def test_labels_that_come_later_are_a_load_of_their_own(tmp_path, dsn):
    run = loadable_run(tmp_path, labels={"title": ["x"] * 300})
    first = load_run(run, dsn, labels=False)
    second = load_run(run, dsn)
    assert (first.run_id, second.already_loaded) != (second.run_id, True)
    assert ask(dsn, "SELECT DISTINCT labels FROM nearfield.recordings") == [({"title": "x"},)]


def test_loading_again_does_nothing_but_publish(tmp_path, dsn):
    first = loadable_run(tmp_path / "1", seed=1)
    run_id = load_run(first, dsn).run_id
    load_run(loadable_run(tmp_path / "2", seed=2), dsn)
    again = load_run(first, dsn)
    assert (again.run_id, again.already_loaded, again.bytes) == (run_id, True, 0)
    assert current(dsn).run_id == run_id


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (None, "never verified"),
        ({"passed": False, "recall": 0.4}, r"failed its verification \(recall 0.4"),
        ({"matrix_sha256": "0" * 64}, "before its matrix was made anew"),
        ({"passed": None}, "failed"),
    ],
)
def test_an_unverified_run_is_loaded_by_force_only_and_marked(tmp_path, dsn, verdict, message):
    run = loadable_run(tmp_path)
    if verdict is None:
        run.verification.unlink()
    else:
        write_verdict(run, **verdict)
    with pytest.raises(QualityGate, match=message):
        load_run(run, dsn)
    assert load_run(run, dsn, force=True).forced
    assert current(dsn).forced
    write_verdict(run)
    assert load_run(run, dsn).already_loaded
    assert (current(dsn).forced, current(dsn).recall) == (False, 0.97)


def test_a_matrix_that_changed_since_its_manifest_is_refused(tmp_path, dsn):
    run = loadable_run(tmp_path)
    content = bytearray(run.matrix.read_bytes())
    content[-100] ^= 1
    run.matrix.write_bytes(content)
    with pytest.raises(DamagedArtefact, match="checksum"):
        load_run(run, dsn)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("neighbours", (7, 2), 300),
        ("neighbours", (7, 2), -1),
        ("neighbours", (7, 2), 7),
        ("distances", (7, 2), np.nan),
        ("distances", (7, 4), np.inf),
        ("distances", (7, 0), 5.0),
    ],
)
def test_a_list_that_is_none_stops_the_load(tmp_path, dsn, name, place, value):
    load_run(loadable_run(tmp_path / "good", seed=1), dsn)
    run = loadable_run(tmp_path / "bad")
    rewrite_matrix(run, lambda file: file[name].__setitem__(place, value))
    before = tables(dsn)
    with pytest.raises(DamagedArtefact, match="row 7 "):
        load_run(run, dsn)
    assert tables(dsn) == before
    assert rows_seen(dsn) == 300


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_the_table_itself_keeps_out_what_isnt_a_number(tmp_path, dsn, value):
    run_id = load_run(loadable_run(tmp_path, k=2), dsn).run_id
    with pytest.raises(psycopg2.errors.CheckViolation):
        ask(
            dsn,
            "INSERT INTO nearfield.neighbours_all VALUES (%s, 999, '{1,2}', %s)",
            run_id,
            [1.0, float(value)],
        )


def test_a_row_that_changed_on_its_way_is_noticed(tmp_path, dsn, monkeypatch):
    honest = Source.lists

    def lying(self, *range_of_rows):
        for first, neighbours, distances in honest(self, *range_of_rows):
            yield first, neighbours, np.nextafter(distances, np.float32(2))

    monkeypatch.setattr(Source, "lists", lying)
    with pytest.raises(DatabaseError, match="differs from the matrix"):
        load_run(loadable_run(tmp_path), dsn)
    assert not tables(dsn)


def test_attaching_scans_nothing(tmp_path, dsn):
    run_id = load_run(loadable_run(tmp_path), dsn).run_id
    connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        cursor.execute("SET client_min_messages = debug1")
        for parent in ("neighbours", "recordings"):
            leaf = f"nearfield.{parent}_{run_id}"
            cursor.execute(f"ALTER TABLE nearfield.{parent}_all DETACH PARTITION {leaf}")
            cursor.execute(
                f"ALTER TABLE nearfield.{parent}_all ATTACH PARTITION {leaf} FOR VALUES IN (1)"
            )
    implied = [note for note in connection.notices if "is implied by existing constraints" in note]
    assert len(implied) == 2
    connection.close()


def test_a_second_loader_is_told_to_wait(tmp_path, dsn):
    process = stuck_load(loadable_run(tmp_path / "1", n=3000, seed=1), dsn)
    try:
        with pytest.raises(RunLocked, match="another nearfield process"):
            load_run(loadable_run(tmp_path / "2", seed=2), dsn)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_loader_that_dies_in_the_middle_disturbs_nobody_and_can_be_repeated(tmp_path, dsn, how):
    load_run(loadable_run(tmp_path / "1", seed=1), dsn)
    before = tables(dsn)
    run = loadable_run(tmp_path / "2", n=3000, seed=2)
    process = stuck_load(run, dsn)
    process.send_signal(how)
    try:
        process.wait(30)
    finally:
        process.kill()
    assert rows_seen(dsn) == 300
    wait_for_other_sessions(dsn)
    assert tables(dsn) - before <= {"recordings_2"}
    assert not load_run(run, dsn).already_loaded
    assert rows_seen(dsn) == 3000


def wait_for_other_sessions(dsn):
    """The server notices a vanished client when it next reads from it."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    while ask(dsn, statement) != [(0,)]:
        pass


def test_a_server_killed_in_the_middle_keeps_the_old_matrix(tmp_path, monkeypatch):
    folder = tmp_path / "postgres"
    old, new = loadable_run(tmp_path / "1", seed=1), loadable_run(tmp_path / "2", n=3000, seed=2)
    whole = Source.lists

    def killing(self, rows, start=0, stop=None):
        yield next(whole(self, 1024, start, stop))
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        yield from list(whole(self, 1024, start, stop))[1:]

    with embedded(folder) as dsn:
        load_run(old, dsn)
        monkeypatch.setattr(Source, "lists", killing)
        with pytest.raises(DatabaseError, match=r"broke off.*again"):
            load_run(new, dsn)
    monkeypatch.setattr(Source, "lists", whole)
    with embedded(folder) as dsn:
        assert rows_seen(dsn) == 300
        load_run(new, dsn)
        assert rows_seen(dsn) == 3000
    assert not Path(sockets_of(dsn)).exists()


def test_a_disk_that_fills_up_on_the_server_changes_nothing(tmp_path, small_disk):
    place = small_disk(80 << 20)
    small = loadable_run(tmp_path / "small", seed=1)
    large = loadable_run(tmp_path / "large", n=60_000, k=100, seed=2)
    with embedded(place / "postgres") as dsn:
        load_run(small, dsn)
        with pytest.raises(DiskFull, match="no room left"):
            load_run(large, dsn)
        assert rows_seen(dsn) == 300
        assert [(run.run_id, run.state, run.rows) for run in runs(dsn)] == [
            (1, "current", 300),
            (2, "interrupted", 0),
        ]
