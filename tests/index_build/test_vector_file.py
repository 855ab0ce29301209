"""Vectors that lie on another machine: copied to this one once, and forgotten at the end."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from index_build.vector_file import at_hand, forget_copy, mapped_vectors, rows_at_hand, vectors_of
from nearfield.locations import CACHE_VARIABLE, UNUSED_S
from nearfield.mounts import is_remote
from nearfield.traffic import counted

SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
ROWS = np.random.default_rng(0).normal(size=(500, 7)).astype(np.float32)


@contextmanager
def served(source, target):
    """`source` by SFTP at `target`, as another machine's disk looks from here."""
    target.mkdir()
    ours, theirs = os.pipe(), os.pipe()
    server = subprocess.Popen([SFTP_SERVER], stdin=ours[0], stdout=theirs[1])
    client = subprocess.Popen(
        ["sshfs", "-f", "-o", "passive,dcache_timeout=1", f"x:{source}", target],
        stdin=theirs[0],
        stdout=ours[1],
    )
    for end in (*ours, *theirs):
        os.close(end)
    try:
        for _ in range(200):
            if target.is_mount() or client.poll() is not None:
                break
            time.sleep(0.05)
        if not target.is_mount():
            pytest.skip("FUSE can't be mounted here")
        yield target
    finally:
        # lazily: a reader may still hold a file of it
        subprocess.run(["fusermount3", "-u", "-z", target], check=False, capture_output=True)
        for process in (client, server):
            process.terminate()
            process.wait(60)


@pytest.fixture
def far(tmp_path, monkeypatch):
    """A file of vectors on a mount; the cache beside it is this machine's."""
    if not (shutil.which("sshfs") and SFTP_SERVER.exists() and Path("/dev/fuse").exists()):
        pytest.skip("needs sshfs and sftp-server")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "there").mkdir()
    np.save(tmp_path / "there" / "vectors.npy", ROWS)
    with served(tmp_path / "there", tmp_path / "far") as mounted:
        yield mounted / "vectors.npy"


def copies(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.stat().st_size > ROWS.nbytes]


def test_it_is_copied_once_and_forgotten(far, tmp_path):
    assert is_remote(far)
    assert not at_hand(str(far))
    with counted() as traffic:
        for _ in range(2):
            np.testing.assert_array_equal(mapped_vectors(str(far)), ROWS)
            rows = np.array([499, 0, 7], np.int32)
            np.testing.assert_array_equal(rows_at_hand(str(far), rows), ROWS[rows])
    assert traffic.read == far.stat().st_size
    assert len(copies(tmp_path)) == 1
    forget_copy(str(far))
    assert not copies(tmp_path)
    assert far.exists()


@pytest.mark.parametrize("left", [0, ROWS.nbytes // 2])
def test_a_copy_that_a_power_cut_left_short_is_fetched_again(far, tmp_path, left):
    mapped_vectors(str(far))
    (copy,) = copies(tmp_path)
    os.truncate(copy, left)
    np.testing.assert_array_equal(mapped_vectors(str(far)), ROWS)
    assert copies(tmp_path) == [copy]


def test_another_file_in_its_place_is_another_copy(far, tmp_path):
    mapped_vectors(str(far))
    np.save(tmp_path / "there" / "other.npy", -ROWS)
    os.utime(tmp_path / "there" / "other.npy", (1, 1))
    (tmp_path / "there" / "other.npy").replace(tmp_path / "there" / "vectors.npy")
    for _ in range(100):
        if far.stat().st_mtime == 1:
            break
        time.sleep(0.3)
    np.testing.assert_array_equal(mapped_vectors(str(far)), -ROWS)


def test_a_few_rows_are_read_where_they_are(far, tmp_path):
    with counted() as traffic:
        np.testing.assert_array_equal(vectors_of(str(far), 10, 20), ROWS[10:20])
    assert traffic.read == 10 * 7 * 4
    assert not copies(tmp_path)


def test_without_room_for_a_copy_it_is_read_where_it_is(far, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(mapped_vectors(str(far)), ROWS)


def test_what_lies_here_is_read_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    np.save(tmp_path / "vectors.npy", ROWS)
    assert at_hand(str(tmp_path / "vectors.npy"))
    np.testing.assert_array_equal(mapped_vectors(str(tmp_path / "vectors.npy")), ROWS)
    forget_copy(str(tmp_path / "vectors.npy"))
    assert not copies(tmp_path)
    assert (tmp_path / "vectors.npy").exists()


def test_copies_of_abandoned_builds_go_when_another_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(
        "index_build.vector_file.is_remote", lambda path: path.is_relative_to(tmp_path / "far")
    )
    (tmp_path / "far").mkdir()
    for name in ("abandoned.npy", "young.npy", "asked.npy"):
        np.save(tmp_path / "far" / name, ROWS)
        mapped_vectors(str(tmp_path / "far" / name))
        if name == "abandoned.npy":
            for left in (tmp_path / "cache" / "vectors").iterdir():
                os.utime(left, (time.time() - UNUSED_S - 9,) * 2)
    assert len(copies(tmp_path)) == 2
    np.testing.assert_array_equal(mapped_vectors(str(tmp_path / "far" / "asked.npy")), ROWS)
    assert len(copies(tmp_path)) == 2
