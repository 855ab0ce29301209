"""A library that compiles itself does so once, and its time is in no figure but its own."""

from dataclasses import replace

import pytest

from benchmark.results.outcome import Status
from benchmark.runner import parents
from benchmark.runner.budget import Allowance
from benchmark.runner.group import run_group
from tests.benchmark.bench_case import find_truths, group_of, place_in, surface

SELFJOIN = "index_build.selfjoin_method:SelfJoin"
NOTHING_IS_THERE = 1.0
"""Seconds that the first use takes at least, in the made-up method and in any that compiles."""


@pytest.fixture(autouse=True)
def _no_parent_is_left():
    yield
    parents.close_parents()


@pytest.fixture
def place(tmp_path):
    place = place_in(tmp_path, surface(220))
    find_truths(place, 100)
    return place


def test_the_first_use_is_charged_to_nothing_and_comes_once(place):
    first = run_group(place, group_of(place, ":Compiles"), None)
    assert first.cold_s > NOTHING_IS_THERE
    assert {row.status for row in first.outcomes} == {Status.OK}
    for row in first.outcomes:
        assert row.build_s < 0.5
        assert row.cold_s == pytest.approx(first.cold_s)
    assert first.seconds < NOTHING_IS_THERE
    smaller = run_group(place, group_of(place, ":Compiles", n=100), None)
    assert (smaller.cold_s, smaller.measured) == (0.0, 2)
    again = run_group(place, group_of(place, ":Compiles"), None)
    assert (again.measured, again.outcomes) == (0, first.outcomes)


def test_more_rows_than_the_first_use_had_are_another_first_use(place):
    small = run_group(place, group_of(place, ":Compiles", n=100), None)
    large = run_group(place, group_of(place, ":Compiles"), None)
    assert 0 < large.cold_s < NOTHING_IS_THERE
    for row in large.outcomes:
        assert row.cold_s == pytest.approx(small.cold_s + large.cold_s)


def test_what_a_group_may_take_under_a_budget_begins_behind_the_first_use(place):
    little = Allowance(0.9, 0.9, 60.0)
    report = run_group(place, group_of(place, ":Compiles"), little)
    assert {row.status for row in (*report.outcomes, *report.unmeasured)} == {Status.OK}


@pytest.mark.slow
def test_a_budget_of_which_the_first_use_takes_too_much_drops_the_method_until_the_next_run(place):
    little = Allowance(1.0, 1.0, 3.0)
    report = run_group(place, group_of(place, ":Compiles"), little)
    assert report.measured == 0
    assert {row.status for row in report.unmeasured} == {Status.DROPPED}
    assert run_group(place, group_of(place, ":Compiles", n=100), little).cold_s == 0
    parents.close_parents()
    assert run_group(place, group_of(place, ":Compiles"), None).measured == 2


@pytest.mark.slow
def test_a_first_use_that_is_known_to_be_too_long_is_not_begun(place):
    assert run_group(place, group_of(place, ":Compiles"), Allowance(0.5, 0.5, 3.0)).cold_s > 0
    parents.close_parents()
    known = parents.first_use_expected(
        place.directory, group_of(place, ":Compiles").configuration.address
    )
    assert known > 1.2
    little = Allowance(0.5, 0.5, known)
    report = run_group(place, group_of(place, ":Compiles"), little)
    assert report.cold_s == 0
    assert {row.reason for row in report.unmeasured} == {
        f"left out by the budget: first use: takes about {known:.0f} s"
    }
    # of which enough is left is begun, whatever part one of unknown length may take
    enough = Allowance(5.0, 5.0, 4 * known, first_use=0.01)
    assert run_group(place, group_of(place, ":Compiles"), enough).measured == 2


def test_a_first_use_that_crashes_is_the_reason_of_every_row(place):
    report = run_group(place, group_of(place, ":CompilesInVain"), None)
    assert {row.reason for row in report.outcomes} == {"build: first use: killed by SIGSEGV"}


def test_a_first_use_that_takes_too_long_is_a_time_out(place):
    short = replace(place, settings=replace(place.settings, timeout_s=0.5))
    report = run_group(short, group_of(place, ":Compiles"), None)
    assert {row.status for row in report.outcomes} == {Status.TIMEOUT}


@pytest.mark.long
def test_no_figure_of_the_self_join_holds_compiling(tmp_path):
    vectors = surface(7_000)
    vectors[-500:] = vectors[:500]
    settings = {"workloads": ("all",), "ks": (10,), "threads": 2, "timeout_s": 220.0}
    place = place_in(tmp_path, vectors, **settings)
    report = run_group(place, group_of(place, SELFJOIN), None)
    (row,) = report.outcomes
    assert row.status is Status.OK, row.reason
    # nothing of it was compiled for this directory: dozens of functions
    assert row.cold_s > 5
    assert row.repetition_seconds[0] < row.cold_s / 5
    # what was compiled is kept on disk, for the next run
    parents.close_parents()
    more = replace(place, settings=replace(place.settings, ks=(11,)))
    find_truths(more, place.data.base)
    again = run_group(more, group_of(more, SELFJOIN), None)
    assert 0 < again.cold_s < report.cold_s / 2
