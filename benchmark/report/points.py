"""What the page's charts draw, as JSON that can stand inside HTML. Pure.

Every point is a list (its columns are `COLUMNS`), configurations are numbers into a list of names:
the default ladder has some 25,000 points, and the page must stay small.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.report.curves import Curve
from benchmark.results.outcome import Outcome

COLUMNS = (
    *("configuration", "n", "k", "batch", "recall", "recall_low", "recall_high", "qps"),
    *("p50_ms", "p99_ms", "build_s", "total_s", "load_s", "index_bytes", "peak_bytes"),
    *("build_peak_bytes", "distance_ratio"),
)
DIGITS = 4


def charted(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes that the charts show: measured, and not under a memory limit."""
    return [one for one in outcomes if one.measured and not one.memory_limit_bytes]


def unbeaten(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other point of the same method, size, k and batch beats in recall and speed."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.method, one.n, one.k, one.batch), []).append(one)
    kept: list[Outcome] = []
    for group in groups.values():
        best = -1.0
        for one in sorted(group, key=lambda one: (-_speed(one), -(one.recall or 0))):
            if (one.recall or 0) > best:
                kept.append(one)
                best = one.recall or 0
    return kept


def _speed(outcome: Outcome) -> float:
    if outcome.workload == "all":
        return 1 / outcome.total_s if outcome.total_s else 0.0
    return outcome.qps or 0.0


def points_json(
    outcomes: Sequence[Outcome], lines: Sequence[Curve], methods: Sequence[str], full: int
) -> str:
    """Everything the script needs. `methods`: in the order of their colours and shapes."""
    names = list(dict.fromkeys((one.method, one.build, one.search) for one in outcomes))
    numbers = {name: place for place, name in enumerate(names)}
    rows = [
        [
            numbers[one.method, one.build, one.search],
            *(_short(getattr(one, column)) for column in COLUMNS[1:]),
        ]
        for one in outcomes
    ]
    grown = [_grown(line, full) for line in lines]
    content = {
        "methods": list(methods),
        "columns": COLUMNS,
        "configurations": names,
        "points": rows,
        "curves": grown,
        "full": full,
    }
    return embedded(json.dumps(content, separators=(",", ":"), allow_nan=False))


def _grown(line: Curve, full: int) -> dict[str, Any]:
    """A curve for the script; memory in MiB, so that the axis has round figures."""
    unit = 2**20 if line.cost == "memory" else 1
    return {
        "method": line.method,
        "k": line.k,
        "cost": line.cost,
        "points": [[n, _short(value / unit)] for n, value in line.points],
        "line": [
            [one.n, *(_short(value / unit) for value in (one.value, one.low, one.high))]
            for one in line.line(full)
        ],
    }


def embedded(text: str) -> str:
    """JSON that can't end the element that it stands in, nor open a comment there."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _short(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    if isinstance(value, int):
        return value
    shortened = float(f"{value:.{DIGITS}g}")
    return int(shortened) if shortened.is_integer() else shortened


def fullest(shown: Sequence[Outcome]) -> int:
    """The size with figures of most methods, the largest of several."""
    methods: dict[int, set[str]] = {}
    for one in shown:
        methods.setdefault(one.n, set()).add(one.method)
    return max(methods, key=lambda n: (len(methods[n]), n))
