"""A whole benchmark through Dask, and its figures computed again by a script of its own."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.choice import read_choice
from benchmark.results.table import read_table
from benchmark.runner import bench
from benchmark.runner.bench import BenchOptions, plan_bench, run_bench
from nearfield.errors import DamagedArtefact, DiskFull, RunLocked
from tests.benchmark.bench_case import surface

pytestmark = pytest.mark.long
OPTIONS = BenchOptions(
    methods=("faiss-ivf", "selfjoin", "missing"), ks=(5, 50), rows=(300,), threads=1
)
GRID = """
[faiss-ivf]
rows_per_list = 64
efforts = 2
[selfjoin]
class = "index_build.selfjoin_method:SelfJoin"
recall = 0.9
[missing]
class = "tests.benchmark.broken_methods:Missing"
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    vectors = surface(1_200)
    vectors[:200] = vectors[200:400]
    np.save(folder / "songs.npy", vectors)
    (folder / "grid.toml").write_text(GRID)
    options = replace(OPTIONS, grid=folder / "grid.toml")
    out = folder / "out"
    return out, options, run_bench(folder / "songs.npy", out, options)


def test_every_workload_k_and_batch_has_a_row(done):
    out, _, report = done
    rows = [row for row in read_table(out) if row.method == "faiss-ivf"]
    assert {(row.workload, row.k, row.batch, row.search) for row in rows} == {
        (workload, k, batch, "nprobe=2")
        for k in (5, 50)
        for workload, batch in (("all", 0), ("queries", 1), ("queries", 100))
    }
    assert report.rows == {"ok": 8, "not installed": 4}
    assert (report.measured, report.kept, report.dropped) == (6, 0, ())


def test_the_table_is_in_csv_too(done):
    out, _, _ = done
    with (out / "outcomes.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12


def test_a_method_that_makes_all_lists_itself_has_no_queries(done):
    rows = [row for row in read_table(done[0]) if row.method == "selfjoin"]
    assert [(row.workload, row.k, row.build) for row in rows] == [
        ("all", 5, "recall=0.9"), ("all", 50, "recall=0.9"),
    ]  # fmt: skip
    assert all(row.total_s == row.search_s for row in rows)


def test_equal_rows_are_noted(done):
    assert any("equal another one" in note for note in done[2].notes)


def test_circumstances_stand_beside_the_figures(done):
    facts = json.loads((done[0] / "bench.json").read_text())
    assert facts["machines"][0]["processor"]["model"]
    assert {library["name"] for library in facts["libraries"]} >= {"faiss", "numpy"}
    assert facts["settings"]["threads"] == 1


def test_an_independent_script_finds_the_same_recall_and_times(done):
    out, _, _ = done
    script = Path(__file__).with_name("recompute.py")
    ran = subprocess.run([sys.executable, script, out], capture_output=True, text=True, check=True)
    rows = {(row.file, row.batch): row for row in read_table(out) if row.measured}
    again = json.loads(ran.stdout)
    assert len(again) == len(rows) == 8
    for found in again:
        row = rows[found["file"], found["batch"]]
        assert found["recall"] == pytest.approx(row.recall, abs=1e-3)
        assert found["qps"] == pytest.approx(row.qps)
        assert found["median"]
        assert found["repeats"] == found["itself"] == 0
        assert found["worst_distance"] < 1e-5
        if row.workload == "queries":
            assert found["p50_ms"] == pytest.approx(row.p50_ms)
            assert found["p99_ms"] == pytest.approx(row.p99_ms)


def test_the_choice_is_about_the_whole_set(done):
    choice = read_choice(done[0] / "choice.toml")
    assert (choice.n, choice.d, choice.space, choice.dataset) == (1_200, 6, "l2", "songs")
    assert {candidate.k for candidate in choice.candidates} == {5, 50}
    assert all(candidate.measured_n == 300 for candidate in choice.candidates)


def test_again_measures_nothing_and_changes_nothing(done):
    out, options, _ = done
    before = (out / "outcomes.csv").read_bytes()
    (out / "results" / ".a.h5.partial-123").touch()
    report = run_bench(out.parent / "songs.npy", out, options)
    assert (report.measured, report.kept) == (0, 6)
    assert (out / "outcomes.csv").read_bytes() == before
    assert list((out / "results").glob(".*")) == []


def test_a_budget_that_is_spent_keeps_what_is_there(done):
    out, options, _ = done
    report = run_bench(out.parent / "songs.npy", out, replace(options, ks=(5,), budget_s=1e-6))
    assert (report.measured, report.kept, report.dropped) == (0, 3, ())
    assert report.rows == {"ok": 8, "not installed": 2}
    report = run_bench(out.parent / "songs.npy", out, replace(options, ks=(7,), budget_s=1e-6))
    assert (report.measured, len(report.dropped)) == (0, 2)
    assert report.rows == {"ok": 8, "dropped": 3, "not installed": 2}


@pytest.fixture
def copied(done, tmp_path):
    """The finished benchmark without what is written at its end."""
    out, options, _ = done
    shutil.copytree(out, tmp_path / "out")
    for name in ("choice.toml", "report.html", "outcomes.parquet"):
        (tmp_path / "out" / name).unlink()
    return out.parent / "songs.npy", tmp_path / "out", options


def assert_recommends(out):
    assert {one.k for one in read_choice(out / "choice.toml").candidates} == {5, 50}
    assert "(k = 50, recall 0.95) use " in (out / "report.html").read_text()


def test_figures_of_a_quick_run_stay_where_a_later_one_leaves_out_the_same(tmp_path):
    np.save(tmp_path / "songs.npy", surface(1_200))
    source, out = tmp_path / "songs.npy", tmp_path / "out"
    quick = BenchOptions(methods=("faiss-flat",), rows=(300,), ks=(5,), threads=1, quick=True)
    first = run_bench(source, out, quick)
    table = (out / "outcomes.csv").read_bytes()
    later = run_bench(source, out, replace(quick, quick=False, budget_s=1e-6))
    assert later.dropped
    assert (later.rows, later.candidates) == (first.rows, first.candidates)
    assert (out / "outcomes.csv").read_bytes() == table


def test_an_interrupted_run_recommends_what_was_measured(copied, monkeypatch):
    source, out, options = copied

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run_groups", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_bench(source, out, options)
    assert_recommends(out)


def test_a_damaged_truth_of_an_earlier_size_costs_the_export_alone(copied):
    source, out, options = copied
    truth = out / "truth" / "queries-300.h5"
    truth.write_bytes(truth.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedArtefact, match=r"queries-300\.h5"):
        run_bench(source, out, replace(options, rows=(200,), budget_s=1e-6))
    assert_recommends(out)


def test_a_budget_that_is_spent_writes_the_table_of_a_whole_run(tmp_path):
    np.save(tmp_path / "songs.npy", surface(1_200))
    (tmp_path / "grid.toml").write_text("[annoy]\ntrees = [20, 10, 40]\n")
    options = BenchOptions(
        rows=(300, 1_000), ks=(5, 10, 20), threads=1, grid=tmp_path / "grid.toml"
    )
    whole = run_bench(tmp_path / "songs.npy", tmp_path / "out", options)
    assert whole.rows["left out"]
    table = (tmp_path / "out" / "outcomes.csv").read_bytes()
    again = run_bench(tmp_path / "songs.npy", tmp_path / "out", replace(options, budget_s=1e-6))
    assert (again.rows, again.measured, again.dropped) == (whole.rows, 0, ())
    assert (tmp_path / "out" / "outcomes.csv").read_bytes() == table


def test_a_plan_writes_nothing(done, tmp_path):
    out, options, _ = done
    plan = plan_bench(out.parent / "songs.npy", tmp_path / "out", options)
    assert (plan.rows, plan.sizes, plan.ks, plan.groups) == (1_200, (300,), (5, 50), 3)
    assert not (tmp_path / "out").exists()


def test_a_locked_directory_is_left_alone(done):
    out, options, _ = done
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    held.stdout.readline()
    with pytest.raises(RunLocked, match="in use by another nearfield process"):
        run_bench(out.parent / "songs.npy", out, options)
    held.communicate("")


HOLD = """
import sys; from pathlib import Path; from nearfield.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.read()
"""


def test_a_full_disk_ends_with_the_sentence_about_it(done, small_disk):
    disk = small_disk(1 << 20)
    out, options, _ = done
    with pytest.raises(DiskFull, match="the same command again"):
        run_bench(out.parent / "songs.npy", disk / "out", options)
