"""The benchmark's table in short: what stands in each section."""

import json
from dataclasses import replace

from benchmark.results.outcome import Outcome, Status
from benchmark.results.summary import summary
from benchmark.results.table import write_table

FACTS = {
    "data": {"name": "songs", "whole": 1_000, "d": 4, "space": "l2"},
    "machines": [{"processor": {"model": "a processor"}}],
    "libraries": [{"name": "annoy", "version": "1.17", "package": "wheel"}],
    "settings": {"threads": 2},
}
GOOD = Outcome(
    *("songs", "l2", 1_000, 4, 10, "all", 0, "annoy", "trees=5", "search_k=9", 2),
    recall=0.96, total_s=1.5, build_s=0.5, measured_at="2026-11-30T10:00:00Z",
)  # fmt: skip


def page(folder, *outcomes):
    write_table(folder, outcomes)
    (folder / "bench.json").write_text(json.dumps(FACTS))
    return summary(folder)


def test_the_fastest_at_each_recall_stands_in_a_row_per_method(tmp_path):
    slower = replace(GOOD, build="trees=9", total_s=2.5, recall=0.995)
    said = page(tmp_path, GOOD, slower)
    assert "| annoy | 1.5 | 1.5 | 2.5 | - |" in said
    assert "for all `annoy(trees=5, search_k=9)` (1.5 s)" in said
    assert "2 points with figures" in said
    assert "Left out" not in said


def test_percentiles_and_the_time_to_add_rows_stand_in_the_row(tmp_path):
    asked = replace(
        GOOD, workload="queries", batch=1, qps=50.0, p95_ms=7.25, p99_ms=9.5, add_s=0.125
    )
    row = next(line for line in page(tmp_path, GOOD, asked).splitlines() if "| annoy |" in line)
    assert "| 7.25 | 9.5 | 0.5 | 0.125 |" in row


def test_what_has_no_figures_is_counted_by_why(tmp_path):
    gone = replace(GOOD, recall=None, total_s=None, search="")
    useless = replace(gone, status=Status.LEFT_OUT, reason="no better than another")
    larger = replace(useless, build="trees=3", reason="for k up to 100 no better than another")
    dear = replace(gone, status=Status.LEFT_OUT, build="trees=9", reason="about 900 s foretold")
    said = page(
        tmp_path,
        GOOD,
        *(useless, replace(useless, k=100), larger, dear),
        replace(gone, status=Status.DROPPED, reason="left out by the budget"),
        replace(gone, status=Status.TIMEOUT, reason="stopped after 5 s"),
    )
    parts = ["configurations of", "for larger k configurations of", "ways to all rows by"]
    assert f"- 1,000 rows: {'; '.join(f'{part} annoy 1' for part in parts)}\n" in said
    assert "| annoy | 1,000 | timeout | stopped after 5 s | 1 |" in said
    assert said.endswith("- 1,000 rows: annoy 1\n")
