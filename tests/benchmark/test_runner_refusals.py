"""What a benchmark refuses before it measures anything."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.results.outcome import Status
from benchmark.runner.bench import BenchOptions, run_bench
from benchmark.runner.possible import obstacle
from nearfield.errors import Infrastructure, UsageError
from tests.benchmark.bench_case import group_of, place_in, surface

OPTIONS = BenchOptions(methods=("faiss-flat",), ks=(5,), rows=(300,), threads=1)


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "songs.npy", surface(400))
    return tmp_path / "songs.npy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("hnsw",)}, "expected methods out of the grid's .*; got 'hnsw'"),
        ({"ks": (0, 5)}, "k of at least 1, got 0"),
        ({"workloads": ("some",)}, "expected workloads out of all, queries; got some"),
        ({"workloads": ()}, "got nothing"),
        ({"timeout_s": 0.0}, "expected --timeout above 0"),
        ({"memory_bytes": 0}, "expected --memory above 0"),
        ({"rows": (1,)}, "at least 2 rows"),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(source, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        run_bench(source, tmp_path / "out", replace(OPTIONS, **changes))


def test_without_an_engine_a_container_is_refused_with_a_way_out(source, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with pytest.raises(Infrastructure, match="expected a container engine for --container"):
        run_bench(source, tmp_path / "out", replace(OPTIONS, container="x"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "lacking", "reason"),
    [
        (":Missing", (), None),
        ("faiss-flat", ("faiss",), "faiss-flat needs the module faiss, which the image x lacks"),
    ],
)
def test_in_a_container_the_libraries_of_the_image_count(tmp_path, address, lacking, reason):
    place = place_in(tmp_path, surface(220), container="x", lacking=lacking)
    found = obstacle(place, group_of(place, address))
    assert found == (None if reason is None else (Status.NOT_INSTALLED, reason))
