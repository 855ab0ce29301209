"""Which group is measured next, what it will take, and which ones a budget leaves out. Pure.

Small sizes come first: they tell what to expect of larger ones. Under a budget, methods that were
far behind the best at a smaller size go to the end, and what doesn't fit any more is dropped.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmark.results.outcome import Outcome
from benchmark.runner.plan import Group

GROWTH = 1.15
"""Exponent that a group's time is taken to grow with from the size below."""
TARGET_RECALL = 0.9
LAGGARD = 0.2
"""Promise below which a group waits until all others are done."""
POOR = 0.05
"""Promise of a method that didn't reach the target recall at all."""


@dataclass(frozen=True)
class Taken:
    """Seconds that all processes of a group took, and how many there were."""

    seconds: float
    processes: int

    @property
    def each(self) -> float:
        """Seconds of a process on average."""
        return self.seconds / max(1, self.processes)

    def grown(self, ratio: float, start_s: float) -> float:
        """Seconds at `ratio` times the rows: starting a process takes `start_s` at any size."""
        starting = min(self.seconds, self.processes * start_s)
        return float(starting + (self.seconds - starting) * ratio**GROWTH)


@dataclass
class History:
    """What is known so far: what finished groups took, and outcomes by size."""

    taken: dict[tuple[str, int], Taken] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def finished(self, group: Group, taken: Taken, outcomes: Iterable[Outcome]) -> None:
        """Remember a finished group."""
        self.taken[str(group.configuration), group.n] = taken
        self.outcomes += outcomes

    @property
    def start_s(self) -> float:
        """Seconds that a process takes at least, as seen so far."""
        return min((taken.each for taken in self.taken.values()), default=0.0)

    def others(self) -> dict[int, Taken]:
        """The mean of the groups of each size."""
        sizes = {n for _, n in self.taken}
        return {n: _mean([one for (_, m), one in self.taken.items() if m == n]) for n in sizes}


def _mean(taken: Sequence[Taken]) -> Taken:
    seconds = statistics.fmean(one.seconds for one in taken)
    return Taken(seconds, round(statistics.fmean(one.processes for one in taken)))


def expected_seconds(group: Group, history: History) -> float | None:
    """Seconds that a group will take: from the same configuration at the nearest size up to its
    own, else from the mean of all others there; None where nothing is known.
    """
    label = str(group.configuration)
    own = {n: taken for (one, n), taken in history.taken.items() if one == label}
    for known in (own, history.others()):
        sizes = [n for n in known if n <= group.n]
        if sizes:
            return known[max(sizes)].grown(group.n / max(sizes), history.start_s)
    return None


def promise(group: Group, history: History) -> float | None:
    """Speed of the configuration relative to the best one, at recall 0.9 and the nearest smaller
    size, in 0..1; the best of its workloads counts. None where it wasn't measured.
    """
    build = str(group.configuration)
    sizes = [outcome.n for outcome in history.outcomes if outcome.n < group.n]
    if not sizes:
        return None
    here = [o for o in history.outcomes if o.n == max(sizes) and o.measured]
    shares = []
    for place in {(o.workload, o.k, o.batch) for o in here}:
        rivals = [o for o in here if (o.workload, o.k, o.batch) == place]
        own = [o for o in rivals if _label(o) == build]
        if own:
            best = _speed(rivals)
            shares.append(_speed(own) / best if best else POOR)
    return max(shares, default=None)


def ordered(remaining: Sequence[Group], history: History, *, budget: bool) -> list[Group]:
    """The groups in the order in which they should be measured."""
    if not budget:
        return sorted(remaining, key=lambda group: group.n)

    def place(group: Group) -> tuple[bool, int, float]:
        promised = promise(group, history)
        hopeful = 1.0 if promised is None else promised
        return hopeful < LAGGARD, group.n, -hopeful

    return sorted(remaining, key=place)


def next_group(remaining: Sequence[Group], history: History, left_s: float | None) -> Group | None:
    """The group to measure next; None where nothing more fits into `left_s` (None: no budget)."""
    for group in ordered(remaining, history, budget=left_s is not None):
        if left_s is None:
            return group
        expected = expected_seconds(group, history)
        if left_s > 0 and (expected is None or expected <= left_s):
            return group
    return None


def remaining_seconds(remaining: Sequence[Group], history: History) -> float | None:
    """What all remaining groups will take, one after the other; None where one is unknown."""
    expected = [expected_seconds(group, history) for group in remaining]
    known = [seconds for seconds in expected if seconds is not None]
    return sum(known) if len(known) == len(expected) else None


def _label(outcome: Outcome) -> str:
    return f"{outcome.method}({outcome.build.replace(',', ', ')})"


def _speed(outcomes: Sequence[Outcome]) -> float:
    """The greatest speed at the target recall; what doesn't reach it counts for little."""
    speeds = [(1.0 if (o.recall or 0) >= TARGET_RECALL else POOR) * _rate(o) for o in outcomes]
    return max(speeds, default=0.0)


def _rate(outcome: Outcome) -> float:
    if outcome.workload == "all":
        return outcome.n / outcome.total_s if outcome.total_s else 0.0
    return outcome.qps or 0.0
