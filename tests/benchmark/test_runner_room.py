"""What a dry run says of the disk, against what real indexes and results take."""

import numpy as np
import pytest

from benchmark.methods import method_named
from benchmark.runner.group import run_group
from benchmark.runner.room import disk_bytes
from tests.benchmark.bench_case import group_of, place_in, surface

INDEXES = [
    *("faiss-flat", "faiss-ivf", "faiss-ivfpq", "faiss-hnsw", "faiss-nndescent", "hnswlib"),
    *("nmslib-hnsw", "nmslib-sw-graph", "annoy", "ball-tree", "exact"),
]


@pytest.fixture(scope="module")
def vectors():
    return surface(3_000, d=32)


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_takes_about_what_its_method_says(tmp_path, vectors, name):
    method = method_named(name, {"build_effort": 20} if "links" in name else {})
    if reason := method.unavailable():
        pytest.skip(reason)
    index = method.build(vectors, "l2", threads=1, seed=0)
    taken = sum((tmp_path / file).stat().st_size for file in index.save(tmp_path))
    assert method.bytes_per_row(32) * 3_000 == pytest.approx(taken, rel=0.25)


@pytest.mark.slow
def test_stored_lists_are_most_of_what_is_taken(tmp_path):
    place = place_in(tmp_path, surface(2_300), ks=(10, 1_000))
    groups = [group_of(place, "faiss-flat"), group_of(place, ":Graphs")]
    for group in groups:
        run_group(place, group, None)
    results = sum(path.stat().st_size for path in (place.directory / "results").iterdir())
    data = sum(path.stat().st_size for path in place.data.path.iterdir())
    index = np.float32().nbytes * place.data.base * place.data.d
    foretold = disk_bytes(place.data, groups, place.settings)
    assert foretold == pytest.approx(results + data + index, rel=0.1)
    assert results > 0.8 * foretold


def test_larger_sizes_count_half_of_a_methods_configurations_unless_all_are_asked_for(tmp_path):
    place = place_in(tmp_path, surface(3_300), ks=(10,))
    few = [group_of(place, "annoy", n=2_100, trees=trees) for trees in (1, 2, 3, 4)]
    more = [group_of(place, "annoy", trees=trees) for trees in (1, 2, 3, 4)]
    nothing = disk_bytes(place.data, [], place.settings)
    index = place.data.base * more[-1].method.bytes_per_row(6)
    small = disk_bytes(place.data, few, place.settings) - nothing - 2_100 * (4 * 6 + 64)
    both = disk_bytes(place.data, [*few, *more], place.settings) - nothing - index
    assert both == pytest.approx(1.5 * small, rel=1e-6)
