"""A group of measurements in real processes: what libraries do wrong becomes rows, not an end."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmark.methods import METHODS, base, method_class
from benchmark.results.file import read_outcomes, result_files
from benchmark.results.outcome import Status
from benchmark.runner import forecast
from benchmark.runner.asking import Asker
from benchmark.runner.budget import NOTHING, Allowance
from benchmark.runner.group import run_group
from benchmark.runner.narrowing import Known
from benchmark.runner.parents import close_parents
from benchmark.runner.store import Place, Store
from nearfield.errors import DamagedArtefact
from tests.benchmark.bench_case import find_truths, group_of, place_in, surface
from tests.benchmark.method_cases import PARAMETERS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_in(tmp_path_factory.mktemp("group"), surface(220))


def run(place, address, **more):
    return run_group(place, group_of(place, address, **more), None)


def statuses(report):
    return {outcome.status for outcome in (*report.outcomes, *report.unmeasured)}


def settings(place, **changes):
    return Place(place.directory, place.data, replace(place.settings, **changes))


@pytest.fixture(scope="module")
def plain(place):
    return run(place, ":Plain")


def test_a_method_gives_a_row_for_each_workload_and_batch(plain):
    assert [(row.workload, row.batch, row.status) for row in plain.outcomes] == [
        ("queries", 1, Status.OK), ("all", 0, Status.OK),
    ]  # fmt: skip
    for row in plain.outcomes:
        assert (row.recall, row.recall_low, row.recall_high) == (1.0, 1.0, 1.0)
        assert row.distance_ratio == pytest.approx(1)
        assert len(row.repetition_seconds) == len(row.repetition_recalls) == 2
        assert row.search_s == row.repetition_seconds[row.repetition]
        assert row.qps == pytest.approx(row.asked / row.search_s)
        assert row.peak_bytes >= row.baseline_bytes > 1 << 20
        assert row.index_bytes > 198 * 6 * 4
        assert (row.add_way, row.add_s, row.add_rows) == ("rebuild", row.build_s, 2)
    every = plain.outcomes[1]
    assert every.total_s == pytest.approx(every.build_s + every.search_s)
    assert (every.asked, every.checked, plain.outcomes[0].asked) == (198, 198, 22)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", [*METHODS, "index_build.selfjoin_method:SelfJoin"])
def test_every_method_is_measured_with_several_threads(tmp_path, method):
    """Its processes are forks, which a library's threads in their parent would end."""
    if reason := method_class(method).unavailable():
        pytest.skip(reason)
    place = place_in(tmp_path, surface(1_200), threads=2, timeout_s=500.0)
    report = run(place, method, **PARAMETERS.get(method, {}))
    close_parents()
    assert statuses(report) == {Status.OK}
    best = {row.workload: row.recall for row in report.outcomes}
    assert min(best.values()) > 0.9


def test_again_keeps_everything_and_starts_nothing(place, plain):
    again = run(place, ":Plain")
    assert (again.measured, again.kept) == (0, 2)
    assert again.outcomes == plain.outcomes
    assert list((place.directory / "indexes").iterdir()) == []


def test_a_broken_result_is_measured_again_and_only_that(place, plain):
    broken = place.directory / plain.outcomes[1].file
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    again = run(place, ":Plain")
    assert (again.measured, again.kept) == (1, 1)
    assert read_outcomes(broken) is not None


@pytest.mark.parametrize(
    ("address", "status", "reason"),
    [
        (":Crashes", Status.CRASHED, "build: killed by SIGSEGV"),
        (":Raises", Status.FAILED, "build: ValueError: links must be even"),
        (":Missing", Status.NOT_INSTALLED, "missing needs the module a_library_that_nobody_has"),
        (":CosineOnly", Status.UNSUPPORTED, "cosine-only has no space l2; it has cosine"),
        (":Invents", Status.FAILED, "returned the row 1000000 where 0..197 were expected"),
    ],
)
def test_what_fails_has_a_row_with_its_reason(place, address, status, reason):
    report = run(place, address)
    rows = (*report.outcomes, *report.unmeasured)
    assert {(row.workload, row.k) for row in rows} == {("all", 3), ("queries", 3)}
    assert {row.status for row in rows} == {status}
    assert all(reason in row.reason and row.recall is None for row in rows)


@pytest.mark.long
def test_a_time_out_is_a_result_that_holds_until_more_time_is_given(place):
    short = settings(place, timeout_s=3.0)
    report = run(short, ":Sleeps")
    assert statuses(report) == {Status.TIMEOUT}
    assert report.outcomes[0].reason == "build: stopped after 3 s"
    assert run(short, ":Sleeps").kept == 2
    assert Store(settings(place, timeout_s=9.0), report.group).kept(
        Store(short, report.group).stand_ins()[0]
    ) is None  # fmt: skip


@pytest.mark.long
def test_memory_above_the_cap_is_a_result(place):
    report = run(settings(place, memory_bytes=400 << 20), ":Devours")
    assert statuses(report) == {Status.OUT_OF_MEMORY}
    assert report.outcomes[0].reason == "build: stopped at 0.39 GiB of resident memory"


@pytest.mark.long
def test_what_was_measured_before_a_crash_is_kept(tmp_path):
    place = place_in(tmp_path, surface(1_100), workloads=("queries",))
    report = run(place, ":DiesLate")
    assert [(row.batch, row.status) for row in report.outcomes] == [
        (1, Status.OK), (100, Status.CRASHED),
    ]  # fmt: skip


def test_figures_of_a_process_that_died_after_them_say_so(tmp_path):
    place = place_in(tmp_path, surface(220), workloads=("all",))
    (row,) = run(place, ":DiesSecond").outcomes
    assert (row.status, len(row.repetition_seconds)) == (Status.OK, 1)
    assert row.reason == "measured before its process ended: crashed, killed by SIGSEGV"
    assert row.peak_bytes is None


def test_what_fails_only_under_the_memory_limit_lacks_memory(place):
    report = run(settings(place, workloads=("queries",)), ":Heavy")
    plain, limited = report.outcomes
    assert (plain.status, plain.memory_limit_bytes) == (Status.OK, None)
    assert (limited.status, limited.memory_limit_bytes) == (
        Status.OUT_OF_MEMORY, plain.index_bytes // 2,
    )  # fmt: skip
    assert limited.reason.startswith("works without the memory limit, not under it: ")
    assert "inconsistent data" in limited.reason


def test_without_budget_left_everything_is_dropped_with_a_row(place):
    report = run_group(place, group_of(place, "faiss-flat"), NOTHING)
    assert statuses(report) == {Status.DROPPED}
    assert report.measured == 0


@pytest.mark.slow
def test_what_is_allowed_ends_the_asking_and_a_later_run_measures_the_rest(tmp_path):
    place = place_in(tmp_path, surface(220))
    group = group_of(place, ":Slow", efforts=(100, 150, 198))
    little = run_group(place, group, Allowance(30.0, 1.2))
    assert statuses(little) == {Status.OK, Status.DROPPED}
    # of every workload something, the middle effort first
    assert {row.search for row in little.outcomes if row.workload == "queries"} >= {"effort=150"}
    rest = run_group(place, group, None)
    assert statuses(rest) == {Status.OK}
    assert rest.kept == little.measured
    assert rest.measured == len(little.unmeasured)


def test_an_index_that_an_interrupted_run_left_is_used(place, plain):
    group = plain.group
    store = Store(place, group)
    facts = store.build_facts()
    made = place.directory / "indexes" / "made"
    made.mkdir()
    np.save(made / "vectors.npy", place.data.vectors[: group.n])
    store.keep_index(made, {**facts, "files": ["vectors.npy"]})
    assert store.index_is_there()
    (store.index / "vectors.npy").write_bytes(b"cut")
    assert not store.index_is_there()
    shutil.rmtree(store.index)


def test_a_point_that_smaller_sizes_foretell_as_hopeless_is_not_started(tmp_path):
    place = place_in(tmp_path, surface(220), n=100, workloads=("all",))
    run(place, ":Plain", n=100, efforts=(1_000,))
    impatient = settings(place, timeout_s=1e-9)
    find_truths(place, 198)
    store = Store(impatient, group_of(place, ":Plain", efforts=(1_000,)))
    (path,) = result_files(place.directory)
    measured = read_outcomes(path)[1][0]
    point = store.stand_ins()[0]
    same = replace(point, effort=1_000, stage="search")
    seconds, largest = store.foretold_seconds(same)
    assert largest == 100
    assert seconds == pytest.approx(measured.repetition_seconds[0] * 1.98)
    # what doesn't hold today foretells nothing
    elsewhere = settings(place, container="x")
    group = group_of(elsewhere, ":Plain", efforts=(1_000,))
    assert Store(elsewhere, group).foretold_seconds(same) is None


def test_lists_that_need_no_index_are_made_where_building_it_fails(place):
    report = run(place, ":GraphWithoutIndex")
    found = {(row.workload, row.status, row.total_s is not None) for row in report.outcomes}
    assert ("all", Status.OK, True) in found
    assert ("queries", Status.FAILED, False) in found


def test_a_truth_that_is_damaged_stops_the_group(tmp_path):
    place = place_in(tmp_path, surface(220), workloads=("queries",))
    truth = place.directory / "truth" / "queries-198.h5"
    truth.write_bytes(truth.read_bytes()[:-1])
    with pytest.raises(DamagedArtefact, match="was truncated or changed"):
        run(place, ":Plain")


def test_what_is_foretold_to_take_many_times_the_fastest_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "DEAR_S", 0.0)
    place = place_in(tmp_path, surface(1_100))
    first = run_group(place, group_of(place, "faiss-flat"), None)
    fastest = replace(first.outcomes[-1], method="other", build="a=1", k=3, total_s=1e-6)
    shutil.rmtree(place.directory / "results")
    (place.directory / "results").mkdir()
    known = Known({3: fastest})
    report = run_group(place, group_of(place, "faiss-flat"), None, known)
    assert {row.workload for row in report.outcomes} == {"queries"}
    (row,) = report.unmeasured
    assert (row.workload, row.status) == ("all", Status.LEFT_OUT)
    assert "s foretold from its queries in batches; other(a=1) took" in row.reason
    everything = settings(place, full=True)
    assert not run_group(everything, group_of(place, "faiss-flat"), None, known).unmeasured


def test_only_efforts_next_to_the_recalls_of_the_tables_are_measured(tmp_path):
    place = place_in(tmp_path, surface(1_100))
    few = run_group(place, group_of(place, "annoy"), None)
    every = run_group(settings(place, full=True), group_of(place, "annoy"), None)
    assert every.kept == few.measured < every.kept + every.measured
    for level in (0.9, 0.95, 0.99):
        assert cheapest(few, level) == cheapest(every, level) is not None


@pytest.mark.parametrize("better", [False, True])
def test_larger_k_are_asked_of_parameters_that_were_better_somewhere(tmp_path, better):
    place = place_in(tmp_path, surface(300), ks=(2, 3, 5, 7), workloads=("queries",))
    speed = 1e-9 if better else 1e9
    places = [("queries", k, level) for k in (2, 3) for level in (0.9, 0.95, 0.99)]
    siblings = dict.fromkeys(places, speed)
    report = run_group(place, group_of(place, "faiss-flat"), None, Known(siblings=siblings))
    assert {row.k for row in report.outcomes} == ({2, 3, 5, 7} if better else {2, 3})
    assert {(row.k, row.status) for row in report.unmeasured} == (
        set() if better else {(5, Status.LEFT_OUT), (7, Status.LEFT_OUT)}
    )
    for row in report.unmeasured:
        assert row.reason == "for k up to 3 no better than other parameters of the method"
    spent = run_group(place, group_of(place, "faiss-flat"), NOTHING, Known(siblings=siblings))
    assert (spent.kept, spent.unmeasured) == (report.measured, report.unmeasured)
    whole = run_group(place, group_of(place, "faiss-flat"), None)
    assert {row.k for row in whole.outcomes} == {2, 3, 5, 7}
    again = run_group(place, group_of(place, "faiss-flat"), None, Known(siblings=siblings))
    assert (again.kept, again.measured, again.unmeasured) == (4, 0, ())


@pytest.mark.slow
def test_lists_that_a_method_makes_itself_and_failures_are_kept_once(tmp_path):
    place = place_in(tmp_path, surface(220))
    for address in (":Graphs", ":GraphCrashes", ":Invents", "faiss-flat"):
        first = run_group(place, group_of(place, address), None)
        again = run_group(place, group_of(place, address), None)
        assert first.outcomes
        assert (again.kept, again.measured) == (first.measured, 0)
        assert sorted(again.outcomes, key=str) == sorted(first.outcomes, key=str)


def test_a_run_for_other_k_that_has_no_time_keeps_what_is_there(tmp_path):
    place = place_in(tmp_path, surface(220))
    first = run_group(place, group_of(place, "faiss-flat"), None)
    more = settings(place, ks=(3, 5))
    report = run_group(more, group_of(place, "faiss-flat"), NOTHING)
    assert sorted(report.outcomes, key=str) == sorted(first.outcomes, key=str)
    assert {(row.k, row.status) for row in report.unmeasured} == {(5, Status.DROPPED)}


def test_lists_that_a_method_makes_itself_stay_where_no_time_is_left_for_its_index(tmp_path):
    place = place_in(tmp_path, surface(220))
    assert run(place, "faiss-nndescent").measured
    more = settings(place, ks=(3, 5))
    report = run_group(more, group_of(place, "faiss-nndescent"), NOTHING)
    assert {(row.workload, row.search) for row in report.outcomes} >= {("all", "")}
    assert {(row.k, row.status) for row in report.unmeasured} == {(5, Status.DROPPED)}


def test_an_index_is_not_built_again_for_k_that_an_earlier_run_asked_for(tmp_path, monkeypatch):
    place = settings(place_in(tmp_path, surface(220), ks=(3, 5)), ks=(3,))
    first = run(place, "faiss-flat")
    run(settings(place, ks=(5,)), "faiss-flat")
    monkeypatch.setattr(Asker, "build", None)
    again = run(place, "faiss-flat")
    assert (again.kept, again.measured, again.outcomes) == (2, 0, first.outcomes)
    both = run(settings(place, ks=(3, 5)), "faiss-flat")
    assert (both.kept, both.measured) == (4, 0)


def test_an_index_is_not_built_for_efforts_that_the_grid_names(tmp_path, monkeypatch):
    place = place_in(tmp_path, surface(220), ks=(3,))
    first = run(place, "faiss-ivf", efforts=(1, 2))
    monkeypatch.setattr(Store, "_recorded", forgetting(Store._recorded, "3"))
    monkeypatch.setattr(Asker, "build", None)
    again = run(place, "faiss-ivf", efforts=(1, 2))
    assert (again.kept, again.measured) == (first.measured, 0)


def forgetting(recorded, k):
    """A record as one of a run for other k was, before it kept those of earlier ones."""

    def without(store):
        facts = dict(recorded(store))
        if "efforts" in facts:
            facts["efforts"] = {one: tried for one, tried in facts["efforts"].items() if one != k}
        return facts

    return without


def test_figures_of_exact_search_hold_until_its_source_changes(place, monkeypatch):
    marks = [Store(place, group_of(place, name)).mark for name in ("exact", "faiss-flat")]
    monkeypatch.setattr(base, "_code", lambda sources: "another")
    changed = [Store(place, group_of(place, name)).mark for name in ("exact", "faiss-flat")]
    assert (marks[0] == changed[0], marks[1] == changed[1]) == (False, True)


def cheapest(report, level):
    efforts = [
        int(row.search.partition("=")[2])
        for row in report.outcomes
        if row.workload == "queries" and row.recall >= level
    ]
    return min(efforts, default=None)
