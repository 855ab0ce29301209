"""What a point will take, and when that speaks against it."""

from dataclasses import replace

import pytest

from benchmark.results.outcome import Outcome, Status
from benchmark.runner.forecast import Forecast
from benchmark.runner.plan import Point
from benchmark.runner.store import Store
from tests.benchmark.bench_case import group_of, place_in, surface

EVERY = Point("all", 10, 4, (0,))
BATCHED = Outcome(
    *("songs", "l2", 198, 6, 10, "queries", 100, "annoy", "trees=50", "search_k=4", 1),
    recall=0.97, qps=0.5,
)  # fmt: skip
FASTEST = replace(
    BATCHED, workload="all", batch=0, method="selfjoin", build="", search="", qps=9.0, total_s=20.0
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = place_in(tmp_path_factory.mktemp("forecast"), surface(220), timeout_s=2_000.0)
    return Store(place, group_of(place, "annoy"))


def test_all_rows_take_what_the_same_efforts_queries_in_batches_take(store):
    seconds, known_from = Forecast(store, {}).seconds(EVERY, [BATCHED])
    assert (seconds, known_from) == (pytest.approx(198 / 0.5), "its queries in batches")
    assert Forecast(store, {}).seconds(replace(EVERY, effort=8), [BATCHED]) is None
    limited = replace(BATCHED, memory_limit_bytes=1)
    assert Forecast(store, {}).seconds(EVERY, [limited]) is None


def test_what_takes_five_times_the_fastest_and_half_a_minute_is_left_out(store):
    status, reason = Forecast(store, {10: FASTEST}).against(EVERY, [BATCHED], 4.0)
    assert status is Status.LEFT_OUT
    assert reason == "about 400 s foretold from its queries in batches; selfjoin took 20 s"
    slower = {10: replace(FASTEST, total_s=81.0)}
    assert Forecast(store, slower).against(EVERY, [BATCHED], 4.0) is None
    brief = {10: replace(FASTEST, total_s=0.1)}
    assert Forecast(store, brief).against(EVERY, [replace(BATCHED, qps=8.0)], 4.0) is None
    assert Forecast(store, {100: FASTEST}).against(EVERY, [BATCHED], 4.0) is None


def test_what_outlasts_the_time_out_is_a_time_out(store):
    status, reason = Forecast(store, {}).against(EVERY, [replace(BATCHED, qps=0.05)], 0.0)
    assert status is Status.TIMEOUT
    assert "about 3,960 s foretold from its queries in batches, the time-out is 2,000 s" in reason


def test_a_larger_k_takes_no_less_than_a_smaller_one(store):
    some = Point("queries", 100, 8, (1,))
    took = {replace(some, k=10, effort=4): 2.0, replace(some, k=300): 90.0, EVERY: 50.0}
    assert Forecast(store, {}).least_seconds(some, took) == pytest.approx(2 * 10**0.6)
    assert Forecast(store, {}).least_seconds(some, {}) == 0
    assert Forecast(store, {}).least_seconds(replace(some, effort=2), took) == 0
