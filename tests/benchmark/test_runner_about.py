"""What earlier runs left in a benchmark's directory: what of it counts today, and what is said."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmark.choice import read_choice
from benchmark.methods import METHODS
from benchmark.results.file import result_files
from benchmark.results.table import read_table
from benchmark.runner import holding as module
from benchmark.runner.bench import BenchOptions, run_bench
from benchmark.runner.group import run_group
from benchmark.runner.holding import holding
from benchmark.runner.store import Place
from tests.benchmark.bench_case import BROKEN, group_of, place_in, surface


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = place_in(tmp_path_factory.mktemp("earlier"), surface(1_100))
    for address in ("faiss-ivf", ":Graphs", ":Raises", ":Invents", ":DiesSecond"):
        run_group(place, group_of(place, address), None)
    return place


ADDRESSES = {name: name for name in METHODS} | {
    name: f"{BROKEN}:{kind}"
    for name, kind in [
        ("graphs", "Graphs"), ("raises", "Raises"), ("invents", "Invents"),
        ("dies-second", "DiesSecond"),
    ]
}  # fmt: skip


def changed(place, **settings):
    return Place(place.directory, place.data, replace(place.settings, **settings))


def test_figures_graphs_and_failures_hold_under_the_same_circumstances(place):
    files = {path.name for path in result_files(place.directory)}
    found = holding(place, ADDRESSES)
    assert found.keys() == files
    assert {found[name] for name in files if name.startswith("faiss-ivf")} == {"faiss"}
    assert holding(changed(place, repeat=3, ks=(3, 7), timeout_s=1.0), ADDRESSES) == found


def test_nothing_holds_under_others(place, monkeypatch):
    assert holding(changed(place, threads=2), ADDRESSES) == {}
    assert holding(changed(place, container="x"), ADDRESSES) == {}
    without = {name: address for name, address in ADDRESSES.items() if name != "faiss-ivf"}
    assert not any(name.startswith("faiss-ivf") for name in holding(place, without))
    built = module.circumstances(place, group_of(place, "faiss-ivf"))
    newer = replace(METHODS["faiss-ivf"].built(), version="0")
    monkeypatch.setattr(METHODS["faiss-ivf"], "built", classmethod(lambda method: newer))
    assert module.circumstances(place, group_of(place, "faiss-ivf")) != built
    assert not any(name.startswith("faiss-ivf") for name in holding(place, ADDRESSES))


@pytest.mark.long
def test_results_of_other_threads_lie_aside_until_they_are_asked_for_again(tmp_path):
    np.save(tmp_path / "songs.npy", surface(1_200))
    out = tmp_path / "out"

    def bench(method, rows, threads):
        options = BenchOptions(methods=(method,), ks=(5,), rows=(rows,), threads=threads)
        return run_bench(tmp_path / "songs.npy", out, options)

    first = bench("faiss-flat", 300, 1)
    second = bench("annoy", 600, 2)
    assert {(row.method, row.n, row.threads) for row in read_table(out)} == {("annoy", 600, 2)}
    choice = read_choice(out / "choice.toml")
    assert (choice.threads, {one.measured_n for one in choice.candidates}) == (2, {600})
    assert first.notes == ()
    assert second.notes[0].startswith("2 results of earlier runs left aside: of other threads")
    assert json.loads((out / "bench.json").read_text())["notes"] == list(second.notes)

    third = bench("annoy", 300, 1)
    assert {(row.method, row.n, row.threads) for row in read_table(out)} == {
        ("faiss-flat", 300, 1), ("annoy", 300, 1),
    }  # fmt: skip
    assert third.notes[0].split()[0] == str(second.measured)
    names = {one["name"] for one in json.loads((out / "bench.json").read_text())["libraries"]}
    assert names >= {"faiss", "annoy", "numpy"}
    again = bench("faiss-flat", 300, 1)
    assert (again.measured, again.kept) == (0, first.measured)
