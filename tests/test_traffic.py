"""Bytes are counted where they are read and written, per thread, and a build reports them."""

import threading

import numpy as np
import pytest

from index_build.segments import open_segments, write_segments
from nearfield import api
from nearfield.traffic import Traffic, counted, note_read, note_written
from tests.cli.conftest import clustered


def test_blocks_nest_and_threads_do_not_mix():
    def elsewhere():
        note_read(1000)

    with counted() as outer:
        note_read(1)
        with counted() as inner:
            note_written(2)
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    assert inner == Traffic(0, 2)
    assert outer == Traffic(1, 2)


def test_a_file_of_segments_counts_as_its_size(tmp_path):
    path = tmp_path / "block-00000"
    with counted() as writing:
        write_segments(path, [(0, {"a": np.arange(1000)})], fingerprint="x")
    assert writing == Traffic(0, path.stat().st_size)
    with counted() as reading:
        open_segments(path).read(0, "a")
    assert reading.written == 0
    assert reading.read == path.stat().st_size


@pytest.mark.parametrize("method", ["exact", "selfjoin"])
def test_a_build_reports_what_its_tasks_moved(tmp_path, method):
    n, d, k = 3000, 8, 5
    np.save(tmp_path / "v.npy", clustered(n, d))
    api.ingest([tmp_path / "v.npy"], tmp_path / "vectors")
    report = api.build(tmp_path / "vectors", tmp_path / "run", k=k, method=method)
    steps = {step["step"]: step for step in api.status(tmp_path / "run").steps}
    last = [step for step in steps.values() if "bytes_written" in step][-1]
    # lists and rows, and HDF5's own structures
    assert n * (8 * k + 4) < last["bytes_written"] < n * (8 * k + 4) + 20_000
    assert sum(step.get("bytes_read", 0) for step in steps.values()) >= n * d * 4
    assert report.bytes_per_recording == sum(
        step.get("bytes_per_recording", 0) for step in steps.values()
    )
    assert report.bytes_per_recording >= 8 * k + 4 + d * 4
