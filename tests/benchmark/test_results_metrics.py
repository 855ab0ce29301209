"""Recall, ratio and percentiles against their definitions, written out plainly."""

import numpy as np
import pytest

from benchmark.results.metrics import (
    clean_lists,
    distance_ratio,
    median_repetition,
    percentiles_ms,
    recall_of,
)

INF = np.inf


def floats(*rows):
    return np.array(rows, np.float32)


def test_recall_counts_ties_with_the_kth_and_not_empty_places():
    truth = floats([1, 2, 2, 3], [0, 0, 5, 6])
    assert recall_of(floats([1, 2], [0, 0]), truth, of=2).mean == 1
    assert recall_of(floats([2, 2], [0, INF]), truth, of=2).mean == 0.75
    assert recall_of(floats([2.00001, 3], [7, INF]), truth, of=2).mean == 0


def test_recall_takes_negative_distances():
    assert recall_of(floats([-3, -2, -1]), floats([-3, -2, -2]), of=1).mean == pytest.approx(2 / 3)


def test_the_interval_of_recall_shrinks_with_the_share_that_was_checked():
    rng = np.random.default_rng(0)
    truth = np.ones((400, 10), np.float32)
    found = np.where(rng.random((400, 10)) < 0.8, 1, 2).astype(np.float32)
    everyone, many = recall_of(found, truth, of=400), recall_of(found, truth, of=10**9)
    assert everyone.low == everyone.mean == everyone.high
    expected = 1.96 * (found == 1).mean(axis=1).std(ddof=1) / 20
    assert many.high - many.mean == pytest.approx(expected, rel=1e-3)


def test_the_distance_ratio_leaves_empty_places_out():
    assert distance_ratio(floats([1, 3, INF]), floats([1, 2, 9, 9])) == pytest.approx(4 / 3)
    assert distance_ratio(floats([0, 0]), floats([0, 0])) is None
    assert distance_ratio(floats([-1, 1]), floats([-2, 1])) is None
    assert distance_ratio(floats([INF]), floats([1])) is None


def test_percentiles_are_milliseconds():
    p50, p95, p99 = percentiles_ms(np.linspace(0, 1, 101))
    assert (p50, p95, p99) == pytest.approx((500, 950, 990))


def test_the_median_repetition_is_one_that_took_place():
    assert median_repetition([3.0, 1.0, 2.0]) == 2
    assert median_repetition([5.0, 4.0]) == 1


def test_repeats_in_a_list_count_once():
    cleaned = clean_lists(np.array([[3, 1, 3, -1], [0, 0, 0, 2]], np.int32), 4)
    assert sorted(cleaned[0].tolist()) == [-1, -1, 1, 3]
    assert sorted(cleaned[1].tolist()) == [-1, -1, 0, 2]


@pytest.mark.parametrize("wrong", [4, -2])
def test_rows_that_are_not_there_are_an_error(wrong):
    with pytest.raises(ValueError, match=f"returned the row {wrong} where 0..3"):
        clean_lists(np.array([[0, wrong]], np.int32), 4)
