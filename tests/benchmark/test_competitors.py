"""The comparison with the libraries: who is charged what."""

import pytest

from benchmark.competitors import Setting, _bisected, curve
from benchmark.competitors_report import cheapest


class TestBisection:
    @pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
    def test_the_effort_found_is_close_above_what_is_needed(self, recall):
        tried = []

        def recall_of(effort: int) -> float:
            tried.append(effort)
            return 1 - 1 / effort

        _bisected([2, 64], (recall,), recall_of)
        needed = 1 / (1 - recall)
        enough = min(effort for effort in tried if effort >= needed)
        assert needed <= enough <= needed + 64 / 2**2
        assert len(tried) <= 5

    def test_a_recall_out_of_reach_ends_with_the_greatest_effort(self):
        tried = []
        _bisected([1, 2, 4], (0.9,), lambda effort: tried.append(effort) or 0.1)
        assert tried == [1, 2, 4]


def test_the_cheapest_counts_build_and_search():
    curves = [
        {"build_seconds": 10.0, "points": [(1, 0.90, 1.0), (2, 0.96, 2.0)]},
        {"build_seconds": 1.0, "points": [(1, 0.90, 5.0), (2, 0.96, 30.0)]},
    ]
    assert cheapest(curves, 0.9)["seconds"] == 6.0
    assert cheapest(curves, 0.95)["seconds"] == 12.0
    assert cheapest(curves, 0.99) is None


def test_probing_all_lists_is_exact_and_one_of_many_is_not():
    n, k = 3_000, 5
    setting = Setting("faiss-ivf", (("rows_per_list", 30),), n, 8, k, threads=1, seed=3)
    points = sorted(curve(setting, (1.0,), timed_rows=n).points)
    assert points[-1][1] == 1.0
    centres_probed, recall, _ = points[0]
    assert 0 < recall < 1
    assert centres_probed == 1
