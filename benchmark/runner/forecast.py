"""What a point will take, by what was measured before it, and whether that is too much.

Owns the foretelling of one point; a group's is `benchmark.runner.budget`'s. Reads results of
smaller sizes, measures nothing.
"""

from collections.abc import Mapping, Sequence

from benchmark.results.outcome import Outcome, Status
from benchmark.runner.plan import Point
from benchmark.runner.store import Store

HOPELESS = 1.5
"""Times the time-out: a point that is foretold to take longer isn't started."""
DEAR_S, DEAR = 30.0, 5
"""A way to the lists of all rows that is foretold to take longer than so many seconds and so many
times the fastest one isn't started: it would take hours to say by how much it is slower.
"""
GROWTH_IN_K = 0.6
"""Exponent with which a point's time grows with k at least: four times from 10 to 100 was seen, and
three times from 100 to 300.
"""


class Forecast:
    """What the points of a group will take. `fastest`: by k the fastest way to the lists of all
    rows of this size, whichever method's.
    """

    def __init__(self, store: Store, fastest: Mapping[int, Outcome]) -> None:
        self.store, self.fastest = store, fastest
        self.n, self.settings = store.group.n, store.place.settings

    def seconds(self, point: Point, outcomes: Sequence[Outcome]) -> tuple[float, str] | None:
        """Seconds that one repetition will take, and from what this is known: the same effort's
        queries in batches, of the group's `outcomes`, tell what every row costs, smaller sizes the
        rest.
        """
        batched = [
            one.qps
            for one in outcomes
            if (one.workload, one.k) == ("queries", point.k)
            and one.qps
            and one.batch > 1
            and one.memory_limit_bytes is None
            and point.effort is not None
            and one.effort == point.effort
        ]
        if point.workload == "all" and batched:
            return self.n / max(batched), "its queries in batches"
        foretold = self.store.foretold_seconds(point)
        return None if foretold is None else (foretold[0], f"{foretold[1]:,} rows")

    def least_seconds(self, point: Point, took: Mapping[Point, float]) -> float:
        """Seconds that its process will take at least, by what those of smaller k of the same
        workload `took`; 0 where nothing is known. What a budget can't bear isn't begun.
        """
        return max(
            (
                seconds * (point.k / other.k) ** GROWTH_IN_K
                for other, seconds in took.items()
                if (other.workload, other.stage, other.limit_bytes)
                == (point.workload, point.stage, point.limit_bytes)
                and other.k < point.k
                and (other.effort or 0) <= (point.effort or 0)
            ),
            default=0.0,
        )

    def against(
        self, point: Point, outcomes: Sequence[Outcome], build_s: float
    ) -> tuple[Status, str] | None:
        """What speaks against measuring it: the time-out, or what the fastest way to the same
        lists took. `build_s`: of the index that it asks.
        """
        foretold, timeout_s = self.seconds(point, outcomes), self.settings.timeout_s
        if foretold is None:
            return None
        seconds, known_from = foretold
        if seconds >= HOPELESS * timeout_s:
            return Status.TIMEOUT, (
                f"not started: about {seconds:,.0f} s foretold from {known_from}, the time-out is "
                f"{timeout_s:,.0f} s"
            )
        fastest = None if self.settings.full else self.fastest.get(point.k)
        if point.workload != "all" or fastest is None or fastest.total_s is None:
            return None
        cost_s = seconds + (build_s if point.stage == "search" else 0.0)
        if cost_s < max(DEAR_S, DEAR * fastest.total_s):
            return None
        took = f"{fastest.label} took {fastest.total_s:,.0f} s"
        return Status.LEFT_OUT, f"about {cost_s:,.0f} s foretold from {known_from}; {took}"
