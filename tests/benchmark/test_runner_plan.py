"""What is measured, and in which order: decisions without any measurement."""

import pytest

from benchmark.grids import Configuration
from benchmark.results.outcome import Outcome
from benchmark.runner.budget import (
    History,
    Shares,
    Taken,
    build_seconds,
    expected_seconds,
    next_group,
    next_within,
    promise,
    remaining_seconds,
    time_left,
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
    spread,
    thinned,
)
from nearfield.errors import UsageError


def group(n, method="annoy", efforts=(), **parameters):
    spaces = frozenset({"l2"})
    return Group(n, Configuration(method, tuple(parameters.items()), efforts, spaces))


SELFJOIN = "index_build.selfjoin_method:SelfJoin"
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


def row(method, build, qps, recall=0.95, n=1_000, k=10):
    return Outcome("d", "l2", n, 4, k, "queries", 1, method, build, "", 2, recall=recall, qps=qps)


def history(*finished):
    known = History()
    for one, taken, outcomes in finished:
        known.finished(one, taken if isinstance(taken, Taken) else Taken(taken, 1), outcomes)
    return known


def test_time_is_expected_from_the_same_configuration_at_a_smaller_size():
    some = [row("annoy", "trees=1", 1.0)]
    known = history(
        (group(1_000), 10.0, some),
        (group(10_000, "faiss-flat"), 50.0, some),
        (group(1_000, "nmslib-hnsw"), Taken(8.0, 4), some),
    )
    assert known.start_s == 2
    assert expected_seconds(group(10_000), known) == pytest.approx(2 + 8 * 10**1.15)
    assert expected_seconds(group(10_000, "hnswlib"), known) == 50
    assert expected_seconds(group(20_000, "hnswlib"), known) == pytest.approx(2 + 48 * 2**1.15)
    assert expected_seconds(group(500, "hnswlib"), known) is None
    assert remaining_seconds([group(500, "hnswlib"), group(1_000)], known) is None
    assert remaining_seconds([group(1_000), group(1_000)], known) == 20


def test_what_is_left_is_said_of_the_size_that_is_measured_or_of_a_budget():
    known = history((group(1_000), Taken(10.0, 5), [row("annoy", "", 1.0)]))
    waiting = [group(1_000), group(1_000, "hnswlib"), group(10_000)]
    assert time_left(waiting, known, 1, None) == ", about 20 s left at 1,000 rows"
    assert time_left(waiting[:2], known, 2, None) == ", about 10 s left"
    assert time_left(waiting, known, 1, 1_000.0) != time_left(waiting[:2], known, 1, 1_000.0)
    assert time_left(waiting, known, 1, 7.0) == ", about 7 s left"
    assert time_left([], known, 1, None) == time_left(waiting, History(), 1, None) == ""


def trees(n, count):
    return group(n, trees=count)


def annoys(n, *speeds, **more):
    """One finished group per speed, with 1, 2, ... trees, each built in a second."""
    return [
        (trees(n, place), Taken(2.0, 2, 1.0), [row("annoy", f"trees={place}", speed, n=n, **more)])
        for place, speed in enumerate(speeds, start=1)
    ]


def test_promise_is_speed_at_equal_recall():
    known = history(
        *annoys(1_000, 1_000.0, 100.0),
        (trees(1_000, 3), 1.0, [row("annoy", "trees=3", 9_000.0, recall=0.3)]),
    )
    assert promise(trees(10_000, 1), known) == 1
    assert promise(trees(10_000, 2), known) == pytest.approx(0.1)
    assert promise(trees(10_000, 3), known) == pytest.approx(0.45)
    assert promise(trees(1_000, 1), known) == 1
    assert promise(group(10_000, "hnswlib"), known) is None


def test_what_was_not_measured_promises_what_its_method_did_at_that_size():
    known = history(
        *annoys(1_000, 100.0), (group(1_000, "hnswlib"), 1.0, [row("hnswlib", "", 1e3)])
    )
    assert promise(trees(1_000, 9), known) == pytest.approx(0.8 * 0.1)
    assert promise(trees(10_000, 9), known) == pytest.approx(0.8 * 0.1)
    assert promise(trees(500, 9), known) is None
    assert build_seconds(trees(2_000, 9), known) == pytest.approx(2**1.15)
    assert build_seconds(group(2_000, "faiss-flat"), known) is None


def test_what_was_tried_in_vain_promises_little_and_so_do_its_siblings():
    known = history(*annoys(1_000, 100.0), (group(1_000, "pynndescent", links=15), 9.0, []))
    sibling = group(1_000, "pynndescent", links=30)
    assert promise(group(10_000, "pynndescent", links=15), known) == 0.05
    assert promise(sibling, known) == pytest.approx(0.8 * 0.05)
    assert next_within([sibling, trees(1_000, 2)], known, Shares(), 90.0)[0] == trees(1_000, 2)


def test_best_at_one_k_is_best():
    known = history(
        (trees(1_000, 1), 1.0, [row("annoy", "trees=1", 9.0), row("annoy", "trees=1", 1.0, k=100)]),
        (trees(1_000, 2), 1.0, [row("annoy", "trees=2", 1.0), row("annoy", "trees=2", 9.0, k=100)]),
    )
    assert promise(trees(1_000, 1), known) == promise(trees(1_000, 2), known) == 1


def test_without_a_budget_small_sizes_come_first_and_nothing_is_left_out():
    groups = [group(10_000), group(1_000), group(1_000, "faiss-flat")]
    assert next_group(groups, History()) == groups[1]
    assert next_group([], History()) is None


def test_under_a_budget_every_size_has_a_share_and_the_largest_the_largest():
    groups = [group(n) for n in (1_000, 10_000, 100_000)]
    shares, left_s, taken = Shares(), 475.0, []
    for expected in groups:
        chosen, allowed = next_within(groups, History(), shares, left_s)
        assert chosen == expected
        taken.append(allowed.total_s)
        left_s -= allowed.total_s  # all of its share, and it isn't through: the next has its turn
    assert taken == pytest.approx([100, 150, 225])
    assert next_within(groups, History(), shares, left_s) is None


def test_a_size_whose_share_is_nearly_used_up_begins_nothing():
    groups, shares = [group(1_000), group(10_000)], Shares()
    assert next_within(groups, History(), shares, 300.0)[0] == groups[0]
    assert next_within(groups, History(), shares, 184.0)[0] == groups[1]


def test_what_a_size_leaves_of_its_share_goes_to_the_larger_ones():
    shares = Shares()
    next_within([group(1_000), group(10_000)], History(), shares, 300.0)
    _, allowed = next_within([group(10_000)], History(), shares, 299.0)
    assert allowed.total_s == 299


def test_the_first_of_each_method_share_equally_where_nothing_is_known_and_come_in_turn():
    groups = [trees(1_000, 1), trees(1_000, 2), group(1_000, "faiss-flat")]
    chosen, allowed = next_within(groups, History(), Shares(), 90.0)
    assert chosen == groups[0]
    assert (allowed.total_s, allowed.points_s) == (90, 45)
    known = history(*annoys(1_000, 10.0))
    assert next_within(groups[1:], known, Shares(), 90.0)[0] == groups[2]


def test_parameters_that_are_efforts_have_their_turn_together():
    joins = [group(1_000, SELFJOIN, recall=recall) for recall in (0.95, 0.9)]
    groups, order = [trees(1_000, 1), *joins, trees(1_000, 2)], []
    known = History()
    while groups:
        chosen, _ = next_within(groups, known, Shares(), 90.0)
        order.append(chosen)
        groups.remove(chosen)
        known.finished(chosen, Taken(1.0, 1), [])
    assert order == [trees(1_000, 1), *joins, trees(1_000, 2)]
    assert next_group([trees(1_000, 2), joins[1]], History()) == trees(1_000, 2)
    assert next_group([trees(1_000, 2), joins[1]], known) == joins[1]


def test_what_an_earlier_run_began_keeps_its_turn():
    known = history(*annoys(1_000, 1_000.0, 900.0), (group(1_000, "hnswlib"), 1.0, []))
    begun = [trees(1_000, 1), group(1_000, "hnswlib"), trees(1_000, 2)]
    assert next_within(begun, known, Shares(), 90.0)[0] == begun[0]
    assert next_group(begun, known) == begun[0]


def test_the_most_promising_come_first_and_laggards_last():
    known = history(*annoys(1_000, 100.0, 1_000.0, 500.0))
    groups = [trees(10_000, place) for place in (1, 2, 3)]
    shares = Shares()
    assert next_within(groups, known, shares, 900.0)[0] == groups[1]
    assert next_within(groups[::2], known, shares, 800.0)[0] == groups[2]
    assert next_within(groups[:1], known, shares, 700.0)[0] == groups[0]


def test_at_larger_sizes_what_nothing_is_known_of_comes_last():
    known = history(*annoys(1_000, 1_000.0, 300.0))
    groups = [trees(10_000, 2), group(10_000, "hnswlib"), trees(10_000, 1)]
    order = []
    while groups:
        chosen, _ = next_within(groups, known, Shares(), 900.0)
        order.append(chosen)
        groups.remove(chosen)
    assert order == [trees(10_000, 1), trees(10_000, 2), group(10_000, "hnswlib")]


def test_the_best_of_each_method_comes_before_the_second_best_of_any():
    graph = group(1_000, "hnswlib", links=8, build_effort=200)
    rows = [row("hnswlib", "links=8,build_effort=200", 400.0)]
    known = history(*annoys(1_000, 900.0, 1_000.0), (graph, 1.0, rows))
    larger = [trees(10_000, 1), trees(10_000, 2), Group(10_000, graph.configuration)]
    assert next_within(larger, known, Shares(), 900.0)[0] == larger[1]
    known.finished(larger[1], Taken(9.0, 1), [row("annoy", "trees=2", 1.0, n=10_000)])
    assert next_within(larger[::2], known, Shares(), 900.0)[0] == larger[2]


def test_a_laggard_of_a_small_size_waits_until_the_largest_size_is_done():
    known = history(*annoys(1_000, 100.0, 1_000.0))
    laggard, hopeful = trees(1_000, 1), trees(100_000, 2)
    assert next_within([laggard, hopeful], known, Shares(), 900.0)[0] == hopeful


def test_a_group_whose_build_does_not_fit_is_not_begun():
    known = history(*annoys(1_000, 1_000.0, 900.0))
    large = trees(100_000, 1)
    build_s = 100**1.15
    assert next_within([large], known, Shares(), 1.2 * build_s) is None
    chosen, allowed = next_within([large], known, Shares(), 2 * build_s)
    assert (chosen, allowed.total_s) == (large, 2 * build_s)
    assert next_within([large], known, Shares(), 0.0) is None


def test_a_build_whose_growth_was_seen_is_foretold_by_it():
    some = [row("annoy", "trees=1", 1.0)]
    first = group(10_000), Taken(0.2, 1, 0.2), some
    known = history(first, (group(100_000), Taken(20.0, 1, 20.0), some))
    assert build_seconds(group(1_000_000), known) == pytest.approx(2_000)
    brief = history(first, (group(100_000), Taken(0.4, 1, 0.4), some))
    assert build_seconds(group(1_000_000), brief) == pytest.approx(0.4 * 10**1.15)


def test_what_used_up_its_part_goes_on_before_the_laggards():
    known = history(*annoys(1_000, 1_000.0, 100.0))
    begun, laggard = trees(1_000, 1), trees(1_000, 2)
    assert next_within([laggard], known, Shares(), 90.0, again=[begun])[0] == begun
    assert next_within([laggard], known, Shares(), 90.0)[0] == laggard


def test_points_are_spread_so_that_one_can_stop_anywhere():
    points = points_of(group(1_000), SETTINGS, {10: [1, 2, 3, 4, 5], 100: [7, 8, 9]}, asked=1)
    order = [(p.k, p.workload, p.effort) for p in spread(points)]
    assert sorted(order) == sorted((p.k, p.workload, p.effort) for p in points)
    assert order[:4] == [
        (10, "queries", 3), (10, "all", 3), (100, "queries", 8), (100, "all", 8),
    ]  # fmt: skip
    assert [effort for k, workload, effort in order if (k, workload) == (10, "all")] == [
        3, 5, 2, 4, 1,
    ]  # fmt: skip
    assert spread([]) == []
