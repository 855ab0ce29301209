"""A dump is there whole or not at all, whatever happens while it is written."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dumps.dump.check import check_dump
from dumps.dump.names import dumps_in, temporaries
from dumps.dump.write import DumpOptions, parse_formats
from nearfield.api import dump
from nearfield.cli import app
from nearfield.errors import DamagedArtefact, DiskFull, MissingFile, RunLocked, UsageError
from tests.dumps.dump_case import EVERYTHING, dumpable_run


@pytest.fixture
def run(tmp_path):
    return dumpable_run(tmp_path).path


def nothing_there(out):
    return [path.name for path in out.glob("*") if path.name != ".lock"] == []


@pytest.mark.parametrize("room", [12 << 10, 48 << 10, 80 << 10, 120 << 10])
def test_a_full_disk_is_said_and_leaves_nothing(small_disk, run, room):
    out = small_disk(room)
    with pytest.raises(DiskFull, match="no room left"):
        dump(run, out, EVERYTHING)
    assert nothing_there(out)


KILLED = """
import os, signal, sys
from pathlib import Path
from dumps.dump import write
from nearfield.run import open_run

own, place = getattr(write, sys.argv[3]), int(sys.argv[4])
def killed(*args, **options):
    if place:
        own(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(write, sys.argv[3], killed)
write.write_dump(open_run(Path(sys.argv[1])), Path(sys.argv[2]), write.DumpOptions())
"""


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("write_parquet", 1),
        ("write_bytes", 0),
        pytest.param("write_csv", 0, marks=LONG),
        pytest.param("readme", 0, marks=LONG),
        pytest.param("fsync_path", 1, marks=LONG),
    ],
)
def test_a_killed_writer_shows_nothing_and_the_next_converges(run, tmp_path, step, after):
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", KILLED, run, out, step, str(after)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    whole = dumps_in(out)
    assert not (out / "LATEST").exists()
    assert len(whole) + len(temporaries(out)) == 1
    made = dump(run, out)
    assert made.made == (not whole)
    assert temporaries(out) == []
    assert dumps_in(out) == [made.path.name] == (out / "LATEST").read_text().split()
    assert check_dump(made.path).passed


def test_two_at_once_are_one(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunLocked):
            dump(run, out)
    results = []

    def attempt():
        try:
            results.append(dump(run, out).made)
        except RunLocked:
            results.append(None)

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert len(dumps_in(out)) == 1


def test_wrong_places_are_named(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        dump(run, tmp_path / "file")
    with pytest.raises(UsageError, match="the run itself"):
        dump(run, run)
    made = dump(run, tmp_path / "out", DumpOptions(formats=("hdf5",)))
    with pytest.raises(UsageError, match="is a dump"):
        dump(run, made.path)
    with pytest.raises(MissingFile, match="run directory"):
        dump(tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_a_folder_without_rights_is_named(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    # root may write anywhere, unless that capability is taken from it
    powerless = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    command = [sys.executable, "-m", "nearfield", "dump", str(run), "--out"]
    for place in (out, out / "new"):
        done = subprocess.run(
            [*(powerless if os.geteuid() == 0 else []), *command, str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert re.fullmatch(rf"nearfield: Permission denied: {place}.*\n", done.stderr), done.stderr
    assert nothing_there(out)


def test_a_damaged_matrix_isnt_dumped(run, tmp_path):
    matrix = run / "matrix.h5"
    content = bytearray(matrix.read_bytes())
    content[len(content) // 2] ^= 1
    matrix.write_bytes(content)
    with pytest.raises(DamagedArtefact, match="checksum"):
        dump(run, tmp_path / "out")
    assert nothing_there(tmp_path / "out")


def test_labels_need_their_vector_set(run, tmp_path):
    recordings = Path(run).parent / "vectors" / "recordings.parquet"
    recordings.unlink()
    with pytest.raises(UsageError, match="--no-labels"):
        dump(run, tmp_path / "out")
    assert dump(run, tmp_path / "out", DumpOptions(labels=False)).made


@pytest.mark.parametrize("text", ["hdf6", "", "parquet,xlsx"])
def test_an_unknown_format_is_refused(text):
    with pytest.raises(UsageError, match="hdf5,parquet,csv"):
        parse_formats(text)


def cli(*arguments):
    done = CliRunner().invoke(app, ["dump", *map(str, arguments)])
    code = getattr(done.exception, "exit_code", done.exit_code)
    return code, done.stdout, str(done.exception)


def test_the_command_says_what_it_did_and_how_it_ended(run, tmp_path):
    out = tmp_path / "out"
    assert "about" in cli(run, "--out", out, "--dry-run")[1]
    assert not out.exists()
    code, text, _ = cli(run, "--out", out, "--formats", "parquet", "--flat", "--keep", "2")
    assert code == 0
    assert "nearfield dump --check" in text
    assert '"passed": true' in cli("--check", out, "--json")[1]
    (next(out.glob("near*")) / "README.md").write_text("x")
    code, text, said = cli("--check", out)
    assert code == 3
    assert text.count("README.md doesn't match its checksum") == 1
    assert "README.md" not in said, "what the report says isn't said twice"
    assert "isn't a sound dump" in said
    for wrong in ((), (run,), (run, "--check", out), (run, "--out", out, "--formats", "x")):
        assert cli(*wrong)[0] == 2
