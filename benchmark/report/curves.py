"""How the cost of a fixed recall grows with n, per method and k, and what the full set will cost.

At each size the cheapest configuration of the method that reaches the recall counts, with all its
repetitions. Pure; the law and its interval are those of `benchmark.results.growth`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.report.advice import RECALL
from benchmark.results.growth import Foretold, Growth, growth_of
from benchmark.results.outcome import Outcome

STEPS = 17
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Curve:
    """Costs measured at sizes; `growth` and `full` (the cost at all rows) need two sizes."""

    method: str
    k: int
    cost: str
    points: Points
    growth: Growth | None
    full: Foretold | None

    def line(self, to: int) -> list[Foretold]:
        """The law from the smallest size to `to` or the largest size, in equal steps of log n."""
        if self.growth is None:
            return []
        sizes = [n for n, _ in self.points]
        ends = (min(sizes), max(*sizes, to))
        return [self.growth.at(int(n)) for n in np.unique(np.geomspace(*ends, STEPS).round())]


@dataclass(frozen=True)
class Cost:
    """A cost that grows: its name, what it is of an outcome (a value per repetition)."""

    title: str
    workload: str
    values: Callable[[Outcome], Iterable[float | None]]


def _own_memory(outcome: Outcome) -> int | None:
    """Peak without what the bare process takes, which doesn't grow with n."""
    peaks = (
        (outcome.peak_bytes, outcome.baseline_bytes),
        (outcome.build_peak_bytes, outcome.build_baseline_bytes),
    )
    return max((peak - (bare or 0) for peak, bare in peaks if peak), default=None)


COSTS: Mapping[str, Cost] = {
    "total": Cost(
        "total time for all",
        "all",
        lambda one: [taken + (one.build_s or 0.0) for taken in one.repetition_seconds],
    ),
    "build": Cost("build time", "all", lambda one: [one.build_s]),
    "memory": Cost("memory beyond the empty process", "all", lambda one: [_own_memory(one)]),
    "query": Cost(
        "time of a query",
        "queries",
        lambda one: [taken / one.asked for taken in one.repetition_seconds if one.asked],
    ),
}


def curves(outcomes: Sequence[Outcome], full: int) -> list[Curve]:
    """Every method's curves, by k, cost and method."""
    best: dict[tuple[int, str, str], dict[int, Outcome]] = {}
    for one in outcomes:
        if not one.measured or one.memory_limit_bytes or (one.recall or 0) < RECALL:
            continue
        if one.workload == "queries" and one.batch != 1:
            continue
        sizes = best.setdefault((one.k, one.workload, one.method), {})
        if one.n not in sizes or _price(one) < _price(sizes[one.n]):
            sizes[one.n] = one
    return [
        _curve(method, k, cost, _points(sizes, COSTS[cost]), full)
        for cost in COSTS
        for (k, workload, method), sizes in sorted(best.items())
        if workload == COSTS[cost].workload and _points(sizes, COSTS[cost])
    ]


def _price(outcome: Outcome) -> float:
    if outcome.workload == "all":
        return outcome.total_s or 0.0
    return 1 / outcome.qps if outcome.qps else float("inf")


def _points(sizes: Mapping[int, Outcome], cost: Cost) -> Points:
    return tuple(
        (n, float(value)) for n in sorted(sizes) for value in cost.values(sizes[n]) if value
    )


def _curve(method: str, k: int, cost: str, points: Points, full: int) -> Curve:
    growth = growth_of([n for n, _ in points], [value for _, value in points])
    return Curve(method, k, cost, points, growth, growth.at(full) if growth else None)
