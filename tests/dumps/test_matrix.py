import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from dumps.matrix import write_matrix
from nearfield.errors import DamagedArtefact, DiskFull, MissingFile
from nearfield.id_stream import held_ids
from nearfield.run import create_run
from tests.dumps.small_run import in_blocks, small_config

N, K = 2500, 6


@pytest.fixture
def lists():
    """Lists that are valid, if not near: the writer doesn't judge."""
    rng = np.random.default_rng(0)
    neighbours = (np.arange(N)[:, None] + 1 + np.arange(K)) % N
    return neighbours.astype(np.int32), np.sort(rng.random((N, K), dtype=np.float32), axis=1)


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", small_config(N, K))


def ids(n=N):
    return pa.chunked_array(
        [[f"Æ-{row}" for row in range(n // 3)], [f"id-{row}" for row in range(n // 3, n)]]
    )


def written(run, lists, block=700, names=None):
    names = held_ids(ids() if names is None else names)
    return write_matrix(
        run, in_blocks(lists, block), names, attributes={"method": "m", "recall_estimate": 0.5}
    )


@pytest.mark.parametrize("block", [1, 700, 1024, 5000])
def test_plain_h5py_reads_what_was_written_whatever_the_blocks(run, lists, block):
    small = tuple(values[:30] % 30 if values.dtype == np.int32 else values[:30] for values in lists)
    if block == 1:
        lists, run = small, create_run(run.path.with_name("tiny"), small_config(30, K))
    n = len(lists[0])
    written(run, lists, block, ids(n))
    with h5py.File(run.matrix, "r") as file:
        np.testing.assert_array_equal(file["neighbours"][...], lists[0])
        np.testing.assert_array_equal(file["distances"][...], lists[1])
        assert file["recording_ids"].asstr()[...].tolist() == ids(n).to_pylist()
        assert (file["neighbours"].dtype, file["distances"].dtype) == (np.int32, np.float32)
        assert (file["neighbours"].fillvalue, file["distances"].fillvalue) == (-1, np.inf)
        assert file["neighbours"].fletcher32 and file["distances"].fletcher32


def bytes_read():
    """By this process, whether from the disk or the page cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_one_row_is_read_without_reading_the_file(tmp_path):
    n, k = 40_000, 32
    run = create_run(tmp_path / "run", small_config(n, k))
    neighbours = ((np.arange(n)[:, None] + 1 + np.arange(k)) % n).astype(np.int32)
    distances = np.sort(np.random.default_rng(0).random((n, k), np.float32), axis=1)
    names = pa.chunked_array([[f"id-{row}" for row in range(n)]])
    written(run, (neighbours, distances), 8192, names)
    before = bytes_read()
    with h5py.File(run.matrix, "r") as file:
        row = file["neighbours"][31_234], file["distances"][31_234]
    read = bytes_read() - before
    np.testing.assert_array_equal(row[0], neighbours[31_234])
    np.testing.assert_array_equal(row[1], distances[31_234])
    assert run.matrix.stat().st_size > 8 * n * k
    assert read < 600_000, "a chunk of each dataset and what says where it is"


def test_the_file_says_what_it_is(run, lists):
    manifest = written(run, lists)
    with h5py.File(run.matrix, "r") as file:
        said = dict(file.attrs)
    assert said["format_version"] == 1
    assert (said["n"], said["k"], said["space"]) == (N, K, "l2")
    assert said["run_fingerprint"] == run.config.fingerprint
    assert said["recall_target"] == 0.95
    assert (said["method"], said["recall_estimate"]) == ("m", 0.5)
    assert json.loads(said["versions"])["h5py"] == h5py.__version__
    assert manifest.facts | {"n": N, "k": K, "method": "m"} == manifest.facts
    assert run.finished_matrix() == manifest


def test_integer_ids_stay_integers(run, lists):
    written(run, lists, names=pa.chunked_array([np.arange(N) * 10**10]))
    with h5py.File(run.matrix, "r") as file:
        assert file["recording_ids"].dtype == np.int64
        assert file["recording_ids"][-1] == (N - 1) * 10**10


def drop(blocks):
    return [block for block in blocks if block[0] != 700]


def repeat(blocks):
    return [blocks[0], blocks[0], *blocks[1:]]


def cut(blocks):
    return blocks[:-1]


def add(blocks):
    return [*blocks, (N, blocks[0][1], blocks[0][2])]


def empty_place(blocks):
    blocks[1][1][3, -1] = -1
    return blocks


def beyond(blocks):
    blocks[1][1][3, 0] = N
    return blocks


def narrow(blocks):
    return [(first, neighbours[:, :-1], distances) for first, neighbours, distances in blocks]


def endless(blocks):
    blocks[1][2][3, -1] = np.inf
    return blocks


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop, "rows 700 to 1,399 are missing"),
        (repeat, "rows 0 to 699 are there twice"),
        (cut, "rows 2,100 to 2,499 of the matrix are missing"),
        (add, "got 3,200"),
        (empty_place, "703"),
        (beyond, "703"),
        (narrow, "expected lists of 6"),
        (endless, "aren't numbers"),
    ],
)
def test_a_fault_among_the_parts_is_named_and_no_file_appears(run, lists, damage, said):
    blocks = damage(list(in_blocks(lists, 700)))
    with pytest.raises(DamagedArtefact, match=said):
        write_matrix(run, blocks, held_ids(ids()), attributes={})
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_as_many_ids_as_rows_are_demanded(run, lists):
    with pytest.raises(DamagedArtefact, match="recording ids"):
        written(run, lists, names=ids(N - 1))


def test_a_failed_rewrite_leaves_no_manifest_that_vouches_for_the_old_file(run, lists):
    written(run, lists)
    with pytest.raises(DamagedArtefact):
        write_matrix(run, cut(list(in_blocks(lists, 700))), held_ids(ids()), attributes={})
    with pytest.raises(MissingFile):
        run.finished_matrix()


def test_a_full_disk_is_said_and_leaves_nothing(small_disk, lists):
    run = create_run(small_disk(100_000) / "run", small_config(N, K))
    with pytest.raises(DiskFull, match="no room left"):
        written(run, lists)
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


KILLED = """
import os, signal, sys
import numpy as np, pyarrow as pa
from pathlib import Path
from dumps.matrix import write_matrix
from nearfield.id_stream import held_ids
from nearfield.run import open_run

ids = held_ids(pa.chunked_array([["x"] * 2500]))

def blocks():
    yield 0, np.ones((2000, 6), np.int32), np.ones((2000, 6), np.float32)
    os.kill(os.getpid(), signal.SIGKILL)

write_matrix(open_run(Path(sys.argv[1])), blocks(), ids, attributes={})
"""


def test_a_killed_writer_leaves_no_matrix_and_the_next_one_succeeds(run, lists):
    child = subprocess.run([sys.executable, "-c", KILLED, run.path], check=False)
    assert child.returncode == -9
    assert not run.matrix.exists()
    with pytest.raises(MissingFile):
        run.finished_matrix()
    assert written(run, lists) == run.finished_matrix()
