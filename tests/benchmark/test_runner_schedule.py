"""Groups on a cluster of two machines: what the client may not decide by itself."""

import time
from collections import Counter

import pytest

from benchmark.methods import base
from benchmark.results.outcome import Status
from benchmark.runner import schedule, store
from benchmark.runner.about import offered
from benchmark.runner.budget import NOTHING
from benchmark.runner.group import run_group
from benchmark.runner.schedule import one_worker_per_host, run_groups
from nearfield.machine import available_cores, machine_facts
from tests.benchmark.bench_case import group_of, place_in, surface
from tests.benchmark.two_hosts import two_hosts

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with two_hosts(tmp_path_factory.mktemp("hosts")) as running:
        yield running


def annoys(place, *counts):
    return [group_of(place, "annoy", trees=trees, efforts=(50,)) for trees in counts]


@pytest.mark.slow
def test_the_time_left_counts_every_machine(client, tmp_path, monkeypatch):
    counted = []
    left = schedule.time_left
    monkeypatch.setattr(
        schedule, "time_left", lambda *given: counted.append(given[2]) or left(*given)
    )
    place = place_in(tmp_path, surface(220), workloads=("queries",))
    run_groups(client, place, annoys(place, 1, 2, 3, 4), None, lambda report: None)
    assert counted == [2, 2, 1, 0]


def test_what_is_there_is_asked_of_a_machine_that_measures(client, tmp_path, monkeypatch):
    place, reports = place_in(tmp_path, surface(220), workloads=("queries",)), []
    groups = annoys(place, 1, 2)
    # a client of another processor, on which no library is installed
    other = machine_facts()
    object.__setattr__(other.processor, "model", "another")
    monkeypatch.setattr(store, "machine_facts", lambda: other)
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    assert {row.status for row in run_group(place, groups[0], NOTHING).unmeasured} == {
        Status.NOT_INSTALLED
    }
    run_groups(client, place, groups, 60.0, reports.append)
    assert [(report.measured, report.kept) for report in reports] == [(1, 0), (1, 0)]
    run_groups(client, place, groups, 60.0, reports.append)
    assert [(report.measured, report.kept) for report in reports[2:]] == [(0, 1), (0, 1)]


def test_threads_and_memory_are_those_of_the_machines_that_measure(client, monkeypatch):
    cores, memory = available_cores(), machine_facts().memory_total_bytes
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(99)))
    assert available_cores() == 99
    assert offered(client) == (cores, memory)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_is_measured_any_more_once_a_run_has_ended(client, tmp_path, error):
    def ends(report):
        raise error

    place = place_in(tmp_path, surface(220), workloads=("queries",), timeout_s=500.0)
    groups = [*annoys(place, 1), group_of(place, ":Sleeps")]
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        run_groups(client, place, groups, None, ends)
    assert time.monotonic() - began < 60
    assert list((place.directory / "indexes").iterdir()) == []
    end = time.monotonic() + 20  # for the scheduler to hear of it
    while any(client.processing().values()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_ends_what_one_measures_whose_client_was_killed(client, tmp_path):
    place = place_in(tmp_path, surface(220), workloads=("queries",), timeout_s=500.0)
    sleeps, host = group_of(place, ":Sleeps"), one_worker_per_host(client)[0]
    nothing = schedule.Known()
    future = client.submit(
        schedule.measure_group, "killed", place, sleeps, None, nothing, workers=[host]
    )
    while not (place.directory / "indexes" / f"{sleeps.name}.work").exists():
        time.sleep(0.05)
    reports = []
    run_groups(client, place, annoys(place, 1, 2), None, reports.append)
    assert Counter(report.measured for report in reports) == {1: 2}
    assert "has ended" in str(future.exception())
