"""What is measured, and in which order: decisions without any measurement."""

import pytest

from benchmark.grids import Configuration
from benchmark.results.outcome import Outcome
from benchmark.runner.budget import (
    History,
    Taken,
    expected_seconds,
    next_group,
    promise,
    remaining_seconds,
)
from benchmark.runner.plan import (
    Group,
    Point,
    Settings,
    batches_for,
    ks_for,
    limited_point,
    points_of,
    sizes_for,
    thinned,
)
from nearfield.errors import UsageError


def group(n, method="annoy", efforts=(), **parameters):
    spaces = frozenset({"l2"})
    return Group(n, Configuration(method, tuple(parameters.items()), efforts, spaces))


SETTINGS = Settings((10, 100), ("all", "queries"), 2, 60, 2**30)


@pytest.mark.parametrize(
    ("base", "sizes"),
    [
        (5_000, (5_000,)),
        (10_500, (10_500,)),
        (50_000, (10_000, 50_000)),
        (491_503, (10_000, 100_000, 491_503)),
        (4_000_000, (10_000, 100_000, 1_000_000, 4_000_000)),
    ],
)
def test_the_ladder_ends_with_the_whole_set(base, sizes):
    assert sizes_for(base, None, quick=False) == sizes


def test_asked_sizes_are_cut_by_the_data():
    assert sizes_for(700, (500, 1_000, 2_000), quick=False) == (500, 700)
    assert sizes_for(700, None, quick=True) == (700,)
    with pytest.raises(UsageError, match="at least 2 rows, got 1"):
        sizes_for(700, (1, 5), quick=False)


def test_k_stays_below_the_number_of_rows():
    assert ks_for(1_000, (10, 100, 1_000)) == (10, 100)
    assert ks_for(7, (10, 100)) == (6,)


def test_batches_are_those_that_the_queries_fill():
    assert batches_for(1_000) == (1, 100, 300, 1_000)
    assert batches_for(50) == (1,)


def test_thinned_efforts_keep_both_ends():
    assert thinned(list(range(10)), 4) == [0, 3, 6, 9]
    assert thinned([1, 2], 4) == [1, 2]
    assert thinned([5, 6, 7], 1) == [5]


def test_points_go_from_cheap_to_dear_for_each_k_and_workload():
    points = points_of(group(1_000), SETTINGS, {10: [1, 5], 100: [7]}, asked=100)
    assert [(p.workload, p.k, p.effort, p.batches) for p in points] == [
        ("queries", 10, 1, (1, 100)),
        ("queries", 10, 5, (1, 100)),
        ("all", 10, 1, (0,)),
        ("all", 10, 5, (0,)),
        ("queries", 100, 7, (1, 100)),
        ("all", 100, 7, (0,)),
    ]


def test_efforts_of_the_grid_come_before_those_of_the_index():
    points = points_of(group(1_000, efforts=(64, "2k")), SETTINGS, {10: [1], 100: [1]}, asked=1)
    assert [p.effort for p in points if p.workload == "all"] == [22, 64, 64, 202]


def test_a_small_index_has_no_limited_point():
    points = [Point("queries", 10, effort, (1, 100)) for effort in (1, 2, 3)]
    assert limited_point(points, 1 << 20) is None
    assert limited_point([], 1 << 30) is None
    assert limited_point(points, 1 << 30) == Point("queries", 10, 2, (100,), 1 << 29)


def row(method, build, qps, recall=0.95, n=1_000):
    return Outcome("d", "l2", n, 4, 10, "queries", 1, method, build, "", 2, recall=recall, qps=qps)


def history(*finished):
    known = History()
    for one, seconds, outcomes in finished:
        known.finished(one, Taken(seconds, 1), outcomes)
    return known


def test_time_is_expected_from_the_same_configuration_at_a_smaller_size():
    known = history((group(1_000), 10.0, []), (group(10_000, "faiss-flat"), 50.0, []))
    known.finished(group(1_000, "nmslib-hnsw"), Taken(8.0, 4), [])
    assert known.start_s == 2
    assert expected_seconds(group(10_000), known) == pytest.approx(2 + 8 * 10**1.15)
    assert expected_seconds(group(10_000, "hnswlib"), known) == 50
    assert expected_seconds(group(20_000, "hnswlib"), known) == pytest.approx(2 + 48 * 2**1.15)
    assert expected_seconds(group(500, "hnswlib"), known) is None
    assert remaining_seconds([group(500, "hnswlib"), group(1_000)], known) is None
    assert remaining_seconds([group(1_000), group(1_000)], known) == 20


def test_promise_is_speed_at_equal_recall():
    fast, slow, poor = group(10_000, trees=1), group(10_000, trees=2), group(10_000, trees=3)
    rows = [
        row("annoy", "trees=1", 1_000.0),
        row("annoy", "trees=2", 100.0),
        row("annoy", "trees=3", 9_000.0, recall=0.3),
    ]
    known = history((group(1_000, trees=1), 1.0, rows))
    assert promise(fast, known) == 1
    assert promise(slow, known) == pytest.approx(0.1)
    assert promise(poor, known) == pytest.approx(0.45)
    assert promise(group(1_000, trees=1), known) is None


def test_without_a_budget_small_sizes_come_first_and_nothing_is_left_out():
    groups = [group(10_000), group(1_000), group(1_000, "faiss-flat")]
    assert next_group(groups, History(), None) == groups[1]


def test_under_a_budget_laggards_wait_and_what_does_not_fit_is_left():
    rows = [row("annoy", "trees=1", 1_000.0), row("annoy", "trees=2", 100.0)]
    finished = [
        (group(1_000, trees=1), 2.0, rows[:1]),
        (group(1_000, trees=2), 1.0, rows[1:]),
    ]
    known = history(*finished)
    laggard, hopeful = group(10_000, trees=2), group(10_000, trees=1)
    huge = group(10**6, trees=1)
    assert next_group([laggard, hopeful], known, 1_000.0) == hopeful
    assert next_group([laggard, huge], known, 10**6) == huge
    known.finished(group(1_000, "nmslib-hnsw"), Taken(0.0, 1), [])
    assert next_group([laggard, hopeful], known, 15.0) == laggard
    assert next_group([laggard, hopeful], known, 1.0) is None
    assert next_group([group(50, "hnswlib")], known, 0.0) is None
