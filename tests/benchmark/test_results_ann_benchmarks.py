"""The export, read as ann-benchmarks' plotter and exporter do: by attributes and plain datasets."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmark.results.ann_benchmarks import export_results
from benchmark.runner.group import run_group
from tests.benchmark.bench_case import find_truths, group_of, place_in, surface

pytestmark = pytest.mark.long
ATTRIBUTES = {
    *("batch_mode", "best_search_time", "candidates", "expect_extra", "name", "run_count"),
    *("distance", "count", "build_time", "index_size", "algo", "dataset"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    place = place_in(tmp_path_factory.mktemp("export"), surface(1_200))
    find_truths(place, 500)
    reports = [
        run_group(place, group_of(place, "faiss-ivf", n=n, efforts=(1,)), None)
        for n in (500, place.data.base)
    ]
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    outcomes.append(replace(outcomes[0], memory_limit_bytes=5))
    target = export_results(place.directory, place.data.queries, outcomes, base=place.data.base)
    return target, outcomes


def recall_as_they_compute_it(dataset, run):
    count = int(run.attrs["count"])
    limits = np.array(dataset["distances"])[:, count - 1] + 1e-3
    return float((np.array(run["distances"])[:, :count] <= limits[:, None]).mean())


def test_every_measured_point_of_the_queries_has_a_file(exported):
    target, _ = exported
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*.hdf5"))
    arguments = "rows_per_list_256_training_rows_per_list_64_nprobe_1.hdf5"
    assert found == [
        "data/songs-500.hdf5",
        "data/songs.hdf5",
        f"results/songs-500/3/faiss-ivf-batch-100/{arguments}",
        f"results/songs-500/3/faiss-ivf/{arguments}",
        f"results/songs/3/faiss-ivf-batch-100/{arguments}",
        f"results/songs/3/faiss-ivf/{arguments}",
    ]


def test_attributes_and_datasets_are_those_of_the_layout(exported):
    target, outcomes = exported
    for path in (target / "results").rglob("*.hdf5"):
        _, dataset, count, algorithm, _ = path.relative_to(target).parts
        with h5py.File(path) as run, h5py.File(target / "data" / f"{dataset}.hdf5") as data:
            assert set(run.attrs) == ATTRIBUTES
            assert (run.attrs["dataset"], run.attrs["algo"]) == (dataset, algorithm)
            assert run.attrs["count"] == int(count) == 3
            assert bool(run.attrs["batch_mode"]) == algorithm.endswith("-batch-100")
            assert run.attrs["distance"] == data.attrs["distance"] == "euclidean"
            assert run["times"].dtype == run["distances"].dtype == np.float32
            assert run["neighbors"].dtype == np.int32
            assert run["neighbors"].shape == run["distances"].shape == (len(data["test"]), 3)
            (row,) = (
                one
                for one in outcomes
                if one.workload == "queries"
                and one.memory_limit_bytes is None
                and (one.n == 500) == (dataset == "songs-500")
                and (one.batch > 1) == run.attrs["batch_mode"]
            )
            assert recall_as_they_compute_it(data, run) == pytest.approx(row.recall, abs=0.01)
            assert 1 / run.attrs["best_search_time"] == pytest.approx(row.qps, rel=1e-4)
            assert float(np.sum(run["times"])) == pytest.approx(row.search_s, rel=1e-4)
            assert run.attrs["index_size"] == row.index_bytes / 1024


def test_distances_belong_to_the_neighbours(exported):
    target, _ = exported
    path = next((target / "results" / "songs" / "3" / "faiss-ivf").glob("*.hdf5"))
    vectors = np.load(target.parent / "data" / "vectors.npy")
    with h5py.File(path) as run, h5py.File(target / "data" / "songs.hdf5") as data:
        near, test = run["neighbors"][...], data["test"][...]
        own = np.linalg.norm(test[:, None] - vectors[near], axis=2)
        assert np.allclose(own, run["distances"], atol=1e-5)


def test_a_second_export_replaces_the_first(exported):
    target, outcomes = exported
    stray = target / "results" / "stray.hdf5"
    stray.touch()
    queries = np.load(target.parent / "data" / "queries.npy")
    assert export_results(Path(target).parent, queries, outcomes, base=1_080) == target
    assert not stray.exists()
