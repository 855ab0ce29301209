"""Few efforts are measured, and those that the tables need are among them."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.runner.efforts import LEVELS, next_to_levels
from benchmark.runner.plan import Point

EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128)


def points(*lines, efforts=EFFORTS):
    return [Point(w, k, effort, (0,)) for w, k in lines for effort in efforts]


def measured(some, recall_of, *, limited=None, fails=()):
    """The points asked for, in order, by an index with `recall_of(workload, k, effort)`."""
    known: dict[tuple[str, int], dict[int, float]] = {}
    asked = []
    for point in next_to_levels(some, limited, lambda w, k: known.get((w, k), {})):
        asked.append(point)
        if point.effort is not None and point is not limited and point.effort not in fails:
            recall = recall_of(point.workload, point.k, point.effort)
            known.setdefault((point.workload, point.k), {})[point.effort] = recall
    return asked, known


def cheapest(recalls, level):
    return min((effort for effort, recall in recalls.items() if recall >= level), default=None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_cheapest_effort_at_each_recall_is_found(recalls):
    truth = dict(enumerate(sorted(recalls)))
    asked, known = measured(points(("queries", 10), efforts=truth), lambda _w, _k, e: truth[e])
    assert len(asked) == len(set(asked))
    for level in LEVELS:
        assert cheapest(known[("queries", 10)], level) == cheapest(truth, level)


def test_half_of_the_efforts_are_enough():
    truth = dict(zip(EFFORTS, (0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.992, 0.999), strict=True))
    asked, _ = measured(points(("queries", 10)), lambda _w, _k, e: truth[e])
    assert [point.effort for point in asked] == [8, 32, 16, 64]


def test_of_all_rows_only_what_the_queries_found_is_measured():
    truth = dict(zip(EFFORTS, (0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.992, 0.999), strict=True))
    both = points(("queries", 10), ("all", 10))
    asked, _ = measured(both, lambda _w, _k, e: truth[e])
    assert [(p.workload, p.effort) for p in asked] == [
        ("queries", 8), ("queries", 32), ("queries", 16), ("all", 32),
        ("all", 16),
        ("queries", 64), ("all", 64),
    ]  # fmt: skip


def test_where_all_rows_fall_short_of_the_queries_the_next_effort_is_measured():
    truth = dict(zip(EFFORTS, (0.3, 0.5, 0.7, 0.85, 0.949, 0.951, 0.992, 0.999), strict=True))
    less = 0.002
    asked, known = measured(
        points(("queries", 10), ("all", 10)),
        lambda workload, _k, e: truth[e] - less * (workload == "all"),
    )
    assert cheapest(known["all", 10], 0.95) == 64
    assert [p.effort for p in asked if p.workload == "all"] == [32, 64, 16]


def test_without_queries_all_rows_are_halved_themselves():
    truth = dict(zip(EFFORTS, (0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.992, 0.999), strict=True))
    asked, known = measured(points(("all", 10)), lambda _w, _k, e: truth[e])
    assert [cheapest(known["all", 10], level) for level in (0.9, 0.95, 0.99)] == [16, 32, 64]
    assert len(asked) == 4


def test_every_k_is_begun_before_any_is_done_and_the_limit_has_its_turn():
    some = points(("queries", 10), ("queries", 100), ("all", 10), ("all", 100))
    limited = Point("queries", 10, 8, (100,), 1 << 20)
    asked, _ = measured(some, lambda _w, _k, e: 1 - 1 / (2 * e), limited=limited)
    assert [(p.workload, p.k) for p in asked[:2]] == [("queries", 10), ("queries", 100)]
    before, behind = asked[: asked.index(limited)], asked[asked.index(limited) + 1 :]
    assert {(p.workload, p.k) for p in before} == {(p.workload, p.k) for p in some}
    assert {p.effort for p in before if p.workload == "all"} == {16}
    assert {p.effort for p in behind if p.workload == "all"} == {8, 64}


def test_what_fails_is_not_asked_again_and_smaller_efforts_are_tried():
    asked, known = measured(points(("queries", 10)), lambda _w, _k, e: 0.91, fails={8, 16, 32})
    assert [point.effort for point in asked] == [8, 2, 4, 1]
    assert set(known["queries", 10]) == {1, 2, 4}


def test_what_is_known_is_not_measured_again():
    some = points(("queries", 10))
    known = {8: 0.85, 16: 0.93, 32: 0.97, 64: 0.992}
    assert list(next_to_levels(some, None, lambda _w, _k: known)) == []
    del known[16]
    assert [p.effort for p in next_to_levels(some, None, lambda _w, _k: known)] == [16]


@pytest.mark.parametrize("workload", ["all", "queries"])
def test_a_single_effort_is_measured_once_and_graphs_come_with_their_k(workload):
    some = [Point("all", 10, None, (0,), stage="graph"), Point(workload, 10, 0, (0,))]
    asked, _ = measured(some, lambda _w, _k, _e: 1.0)
    assert sorted(asked, key=str) == sorted(some, key=str)
    assert list(islice(next_to_levels([], None, lambda _w, _k: {}), 1)) == []
