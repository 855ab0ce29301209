"""What goes on to a larger size: decisions from made-up figures."""

from dataclasses import replace

from benchmark.grids import Configuration
from benchmark.results.outcome import Outcome, Status
from benchmark.runner.budget import History, Taken
from benchmark.runner.narrowing import (
    adds_nothing,
    enough_of,
    fastest_of_all,
    speeds_of_siblings,
    why_left_out,
)
from benchmark.runner.plan import Group

SELFJOIN = "index_build.selfjoin_method:SelfJoin"


def group(n, method="annoy", **parameters):
    return Group(n, Configuration(method, tuple(parameters.items()), (), frozenset({"l2"})))


def trees(n, count):
    return group(n, trees=count)


def row(method, build, qps, *, recall=0.96, n=1_000, k=10):
    return Outcome("d", "l2", n, 4, k, "queries", 1, method, build, "", 2, recall=recall, qps=qps)


def history(*finished):
    known = History()
    for one, outcomes in finished:
        known.finished(one, Taken(1.0, 1), outcomes)
    return known


def tried(*speeds, k=10, n=1_000):
    """One group of Annoy per speed, of 1, 2, ... trees."""
    return [
        (trees(n, place), [row("annoy", f"trees={place}", speed, k=k, n=n)])
        for place, speed in enumerate(speeds, start=1)
    ]


def test_everything_is_measured_of_which_nothing_smaller_is_known():
    known = history(*tried(100.0, 90.0))
    assert why_left_out(trees(1_000, 1), known) is None
    assert why_left_out(group(10_000, "hnswlib"), known) is None
    assert why_left_out(trees(10_000, 3), known) is None


def test_of_a_method_as_few_go_on_as_are_as_good_as_all():
    known = history(*tried(100.0, 90.0, 50.0, 40.0))
    assert why_left_out(trees(10_000, 1), known) is None
    why = why_left_out(trees(10_000, 2), known)
    assert why == "on 1,000 rows no better than annoy(trees=1)"
    assert why_left_out(trees(10_000, 3), known) == why


def test_what_never_reached_a_recall_of_the_tables_goes_on_only_if_nothing_of_its_method_did():
    rough = [row("annoy", "", 900.0, recall=0.85)]
    known = history(*tried(100.0, 50.0), (trees(1_000, 3), rough), (trees(1_000, 4), rough))
    why = why_left_out(trees(10_000, 3), known)
    assert why == "on 1,000 rows never at recall 0.90, unlike annoy(trees=1)"
    left_out = [bool(why_left_out(trees(10_000, count), known)) for count in (1, 2, 3, 4)]
    assert left_out == [False, True, True, True]
    alone = history((trees(1_000, 3), rough), (trees(1_000, 4), rough))
    assert why_left_out(trees(10_000, 3), alone) is None


def test_what_is_best_at_one_k_goes_on():
    known = history(
        (trees(1_000, 1), [row("annoy", "", 100.0), row("annoy", "", 10.0, k=100)]),
        (trees(1_000, 2), [row("annoy", "", 50.0), row("annoy", "", 20.0, k=100)]),
        (trees(1_000, 3), [row("annoy", "", 60.0), row("annoy", "", 15.0, k=100)]),
    )
    known.finished(trees(1_000, 4), Taken(1.0, 1), [row("annoy", "", 1.0)])
    left_out = [bool(why_left_out(trees(10_000, count), known)) for count in (1, 2, 3, 4)]
    assert left_out == [False, False, True, True]


def test_at_most_half_go_on_but_one():
    speeds = {name: {("all", k, 0.9): 1.0} for k, name in enumerate("abcde")}
    assert len(enough_of(speeds)) == 2
    assert enough_of({"a": {("all", 1, 0.9): 1.0}}) == ["a"]
    assert enough_of({"a": {}, "b": {}}) == []


def test_siblings_are_other_parameters_of_the_method_at_the_same_size():
    known = history(*tried(100.0, 70.0), *tried(900.0, n=500))
    known.finished(group(1_000, "hnswlib"), Taken(1.0, 1), [row("hnswlib", "", 1e6)])
    siblings = speeds_of_siblings(trees(1_000, 2), known)
    assert siblings == {("queries", 10, 0.9): 100.0, ("queries", 10, 0.95): 100.0}
    assert speeds_of_siblings(group(1_000, SELFJOIN, recall=0.9), known) == {}


def test_parameters_add_nothing_that_are_no_faster_on_the_average():
    siblings = {("queries", 10, 0.9): 100.0, ("queries", 10, 0.95): 50.0}
    assert adds_nothing([row("annoy", "", 70.0)], siblings)  # 0.7 and 1.4 times
    assert not adds_nothing([row("annoy", "", 71.0)], siblings)
    assert adds_nothing([row("annoy", "", 100.0, recall=0.92)], siblings)
    assert not adds_nothing([row("annoy", "", 101.0, recall=0.92)], siblings)
    assert not adds_nothing([row("annoy", "", 1.0, recall=0.995)], siblings)
    assert adds_nothing([row("annoy", "", 1e6, recall=0.5)], siblings)
    assert not adds_nothing([row("annoy", "", 1.0)], {})


def test_what_is_far_behind_everywhere_is_left_out():
    known = history(
        (group(1_000, "hnswlib"), [row("hnswlib", "", 1_000.0), row("hnswlib", "", 5.0, k=100)]),
        (group(1_000, "exact"), [row("exact", "", 9.0)]),
        (
            group(1_000, "faiss-flat"),
            [row("faiss-flat", "", 9.0), row("faiss-flat", "", 4.0, k=100)],
        ),
    )
    why = why_left_out(group(10_000, "exact"), known)
    assert why == "10 times slower than the best, or more, wherever measured on 1,000 rows"
    assert why_left_out(group(10_000, "faiss-flat"), known) is None
    assert why_left_out(group(10_000, "hnswlib"), known) is None


def test_each_recall_of_the_selfjoin_goes_on():
    def join(n, recall):
        return group(n, SELFJOIN, recall=recall)

    def outcome(recall, seconds):
        return Outcome(
            *("d", "l2", 1_000, 4, 10, "all", 0, "selfjoin", f"recall={recall}", "", 2),
            recall=recall + 0.005, total_s=seconds,
        )  # fmt: skip

    known = history(
        (join(1_000, 0.9), [outcome(0.9, 1.0)]), (join(1_000, 0.95), [outcome(0.95, 1.0)])
    )
    assert why_left_out(join(10_000, 0.9), known) is None
    assert why_left_out(join(10_000, 0.95), known) is None


def test_what_took_too_long_at_a_smaller_size_is_left_out():
    late = replace(row("annoy", "", None), recall=None, status=Status.TIMEOUT)
    known = history((trees(1_000, 1), [late]), *tried(1.0, 1.0, n=500)[1:])
    why = why_left_out(trees(10_000, 1), known)
    assert why == "had no figures on 1,000 rows, within the same limits"
    absent = replace(late, status=Status.NOT_INSTALLED)
    assert why_left_out(trees(10_000, 1), history((trees(1_000, 1), [absent]))) is None


def test_the_nearest_size_counts():
    known = history(*tried(100.0, 10.0, n=100), *tried(10.0, 100.0, n=1_000))
    assert why_left_out(trees(10_000, 2), known) is None
    assert why_left_out(trees(10_000, 1), known) is not None
    assert why_left_out(trees(1_000, 2), known) is not None


def test_the_fastest_way_to_all_lists_has_the_usual_recall():
    every = Outcome(
        *("d", "l2", 1_000, 4, 10, "all", 0, "exact", "", "", 2), recall=1.0, total_s=9.0
    )
    rough = replace(every, recall=0.9, total_s=1.0)
    rows = [rough, every, replace(every, k=100), replace(every, total_s=8.0, n=500)]
    assert fastest_of_all(rows, 1_000) == {10: every, 100: replace(every, k=100)}
