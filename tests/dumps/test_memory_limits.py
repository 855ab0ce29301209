"""A matrix larger than memory is written and read, and memory doesn't grow with recordings."""

import os
import subprocess
import sys

import pytest

from benchmark.product_memory import STEPS, growth, markdown, measured

LIMITED = """
import os, resource, sys, threading
from pathlib import Path
import h5py, numpy as np, pyarrow as pa
from dumps.matrix import write_matrix
from nearfield.id_stream import IdStream
from nearfield.run import create_run
from tests.dumps.small_run import small_config

n, k, room = 60_000, 320, 64 << 20
run = create_run(Path(sys.argv[1]), small_config(n, k))

def lists(first, stop):
    rows = np.arange(first, stop, dtype=np.int32)[:, None]
    neighbours = (rows + 1 + np.arange(k, dtype=np.int32)) % n
    return neighbours.astype(np.int32), (rows + np.arange(k)).astype(np.float32)

def blocks():
    for first in range(0, n, 2000):
        yield first, *lists(first, first + 2000)

def ids():
    for first in range(0, n, 2000):
        yield pa.array([f"recording {row}" for row in range(first, first + 2000)])

def private():
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmData:")[1].split()[0])

threading.stack_size(1 << 20)
pa.array(np.zeros(1000)).cast(pa.string())  # what libraries set up at first use
limit = private() + room
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
write_matrix(run, blocks(), IdStream(n, False, 32 * n, ids), attributes={})
assert run.matrix.stat().st_size > 2 * room
with h5py.File(run.matrix) as file:
    try:
        file["neighbours"][:], file["distances"][:]
    except MemoryError:
        print("the whole file doesn't fit")
    for row in (0, 31_234, n - 1):
        near, far = lists(row, row + 1)
        assert (file["neighbours"][row] == near).all() and (file["distances"][row] == far).all()
        assert file["recording_ids"][row] == f"recording {row}".encode()
"""


def test_a_file_larger_than_memory_is_written_and_asked(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        # an arena for each thread would reserve more than they use
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the whole file doesn't fit\n"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.postgres
def test_memory_doesnt_grow_with_recordings(tmp_path):
    """At sizes that fill every block, window and queue: ids that are held add 45 bytes each.

    What allocators keep differs by up to 60 MiB from one process to the next, 20 bytes a recording.
    """
    sizes, k = (1_000_000, 4_000_000), 2
    results = {n: measured(tmp_path, n, k) for n in sizes}
    assert list(tmp_path.iterdir()) == []
    small, large = (
        {step: each["peak"] + each["readers"] for step, each in results[n].items()} for n in sizes
    )
    for step in STEPS:
        assert growth(small[step], large[step], sizes) < 32, markdown(k, results)
        assert large[step] < 700 << 20, markdown(k, results)
    assert f"| {STEPS[0]} | " in markdown(k, results)
