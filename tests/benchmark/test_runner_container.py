"""Measuring in containers of a real engine: NEARFIELD_TEST_IMAGE names an image that has nearfield.

DOCKER_HOST says where the engine is. Without both the tests are skipped.
"""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from benchmark.results.outcome import Status
from benchmark.results.table import read_table
from benchmark.runner.bench import BenchOptions, run_bench
from benchmark.runner.container import asked_image, engine
from nearfield.errors import UsageError
from tests.benchmark.bench_case import surface

IMAGE = os.environ.get("NEARFIELD_TEST_IMAGE")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(IMAGE is None, reason="NEARFIELD_TEST_IMAGE names no image"),
]
OPTIONS = BenchOptions(
    methods=("faiss-hnsw",), quick=True, ks=(10,), rows=(20_000,), threads=1, container=IMAGE
)


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "songs.npy", surface(23_000, d=64))
    return tmp_path / "songs.npy"


def test_a_container_measures_as_this_machine_does_and_its_limit_is_the_kernels(source, tmp_path):
    out = tmp_path / "out"
    run_bench(source, out, OPTIONS)
    rows = read_table(out)
    assert {row.status for row in rows} == {Status.OK}
    assert all(row.container == IMAGE and row.recall > 0.5 for row in rows)
    facts = json.loads((out / "bench.json").read_text())
    assert facts["settings"]["image"].startswith("sha256:")
    assert {one["name"] for one in facts["libraries"]} >= {"faiss", "numpy"}
    again = run_bench(source, out, OPTIONS)
    assert (again.measured, again.kept) == (0, len({row.file for row in rows}))
    # the files are ours, not another user's
    assert {path.stat().st_uid for path in (out / "results").iterdir()} == {os.getuid()}
    left = engine().containers.list(all=True, filters={"ancestor": facts["settings"]["image"]})
    assert left == []


def test_memory_beyond_the_containers_limit_is_a_result(source, tmp_path):
    little = replace(OPTIONS, memory_bytes=48 << 20)
    run_bench(source, tmp_path / "out", little)
    rows = read_table(tmp_path / "out")
    assert {row.status for row in rows} == {Status.OUT_OF_MEMORY}
    assert all("beyond the container's 0.05 GiB" in row.reason for row in rows)


def test_an_image_without_nearfield_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the engine has none of that name"):
        asked_image("nothing-of-the-kind:here", ("numpy",))
