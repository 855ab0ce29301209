"""The candidates of a choice: measured ways to make all neighbours that a build can go, too.

Owns which of a benchmark's rows become one, and what they are foretold to take on all rows
(`benchmark.results.growth`). Refuses files, and to choose between them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from benchmark.methods import METHODS
from benchmark.methods.spelled import GRAPH
from benchmark.results.growth import Growth, growth_of
from benchmark.results.outcome import Outcome
from nearfield.space import SpaceName

LINEAR, QUADRATIC = 1.0, 2.0
"""Exponents of time: the least that is believed, and of what compares every pair."""
SELFJOIN = "selfjoin"


def buildable(method: str, space: SpaceName) -> bool:
    """Whether `nearfield build --method` takes it in that space: not a class of the user, and under
    inner products no library, whose shards group what is near.
    """
    return method in {SELFJOIN, "exact"} or (method in METHODS and space != "ip")


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to make all neighbours. `recall` is that on `measured_n` rows; time and memory are
    for all n of the file, `exponent` says how time grows. `time_low_s` to `time_high_s`: 95%
    interval; high is absent where nothing is known. Of a single one of `measured_sizes` the growth
    is assumed. Without `search` a method with an index made the lists by its own graph.
    """

    method: str
    k: int
    recall: float
    time_s: float
    memory_bytes: int
    measured_n: int
    exponent: float
    build: str = ""
    search: str = ""
    time_low_s: float = 0.0
    time_high_s: float | None = None
    measured_sizes: int = 1

    @property
    def way(self) -> str:
        """The method with its build parameters, as `nearfield build --method` takes it.

        A recall that is a parameter isn't one there: a build has its own.
        """
        parts = [part for part in self.build.split(",") if part and not part.startswith("recall=")]
        if not self.search and self.method in METHODS and METHODS[self.method].graphs:
            parts.append(f"{GRAPH}=True")
        return f"{self.method}({','.join(parts)})" if parts else self.method


@dataclass(frozen=True)
class _Way:
    """What was measured of one way to make all neighbours with one k, at whatever sizes."""

    measured: tuple[Outcome, ...]

    @cached_property
    def largest(self) -> Outcome:
        return max(self.measured, key=lambda outcome: outcome.n)

    @cached_property
    def sizes(self) -> int:
        return len({outcome.n for outcome in self.measured})

    @cached_property
    def growth(self) -> Growth | None:
        """Through all repetitions at all sizes; None of one size."""
        points = [
            (outcome.n, seconds + (outcome.build_s or 0.0))
            for outcome in self.measured
            for seconds in outcome.repetition_seconds
        ]
        return growth_of([size for size, _ in points], [cost for _, cost in points])

    @property
    def compares_all(self) -> bool:
        """Whether time grows with the square of n by nature."""
        return self.largest.method in METHODS and METHODS[self.largest.method].exact


def candidates_of(outcomes: Iterable[Outcome], n: int) -> list[Candidate]:
    """The ways to make all neighbours that no other beats in recall, time and memory, per k.

    Only what a build can do, and only what was measured at the largest size of its method and k:
    at smaller ones recall is easier. Time for n rows by the power law through all repetitions of a
    way at all sizes, but no slower than n: what small sizes spend on starting isn't growth. What
    was measured at one size is taken to grow with the square of n where every pair is compared;
    else like the worst of its method's other ways, of all ways where there is none, or with n.
    """
    ways = _ways(outcomes)
    largest: dict[tuple[str, int], int] = {}
    for way in ways:
        key = way.largest.method, way.largest.k
        largest[key] = max(largest.get(key, 0), way.largest.n)
    found = [
        _candidate(way, n, _assumed(way, ways))
        for way in ways
        if way.largest.n == largest[way.largest.method, way.largest.k]
    ]
    return sorted(_unbeaten(found), key=lambda one: (one.k, one.time_s))


def _ways(outcomes: Iterable[Outcome]) -> list[_Way]:
    ways: dict[tuple[str, str, str, int], list[Outcome]] = {}
    for outcome in outcomes:
        counts = outcome.measured and outcome.workload == "all" and not outcome.memory_limit_bytes
        # what died after its figures has no known peak, which no limit of memory may pass
        counts = counts and outcome.peak_bytes is not None
        if counts and buildable(outcome.method, outcome.space):
            way = (outcome.method, outcome.build, outcome.search, outcome.k)
            ways.setdefault(way, []).append(outcome)
    return [_Way(tuple(measured)) for measured in ways.values()]


def _assumed(way: _Way, ways: Sequence[_Way]) -> float:
    """The exponent of a way that was measured at one size."""
    if way.compares_all:
        return QUADRATIC
    fitted = [
        (other.largest.method, min(QUADRATIC, other.growth.exponent))
        for other in ways
        if other.growth is not None and not other.compares_all
    ]
    own = [exponent for method, exponent in fitted if method == way.largest.method]
    return max([LINEAR, *(own or [exponent for _, exponent in fitted])])


def _candidate(way: _Way, n: int, assumed: float) -> Candidate:
    largest, growth = way.largest, way.growth
    known = largest.total_s or 0.0
    if growth is None:
        exponent, low, high = assumed, 0.0, None
    else:
        exponent, foretold = max(LINEAR, growth.exponent), growth.at(n)
        more = max(1.0, known * (n / largest.n) ** exponent / foretold.value)
        low = more * foretold.low
        high = more * foretold.high if math.isfinite(foretold.high) else None
    if largest.n == n:
        low, high = min(low or known, known), max(high or known, known)
    return Candidate(
        method=largest.method,
        k=largest.k,
        recall=largest.recall or 0.0,
        time_s=known * (n / largest.n) ** exponent,
        memory_bytes=_memory(largest, n),
        measured_n=largest.n,
        exponent=exponent,
        build=largest.build,
        search=largest.search,
        time_low_s=low,
        time_high_s=high,
        measured_sizes=way.sizes,
    )


def _memory(outcome: Outcome, n: int) -> int:
    """Peak memory at n rows: what was taken beyond the baseline grows with n."""
    scale = n / outcome.n
    peaks = (
        (outcome.peak_bytes, outcome.baseline_bytes),
        (outcome.build_peak_bytes, outcome.build_baseline_bytes),
    )
    return max(
        (int((base or 0) + (peak - (base or 0)) * scale) for peak, base in peaks if peak), default=0
    )


def _unbeaten(candidates: Sequence[Candidate]) -> list[Candidate]:
    def beaten(one: Candidate) -> bool:
        mine = (-one.recall, one.time_s, one.memory_bytes)
        return any(
            other.k == one.k and other is not one and theirs != mine and _all_at_most(theirs, mine)
            for other in candidates
            for theirs in [(-other.recall, other.time_s, other.memory_bytes)]
        )

    return [one for one in candidates if not beaten(one)]


def _all_at_most(left: Sequence[float], right: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True))
