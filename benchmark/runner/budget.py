"""Which group is measured next, what it may take, and which ones a budget leaves out. Pure.

Small sizes come first: they tell what to expect of larger ones. Under a budget every size has a
share of it, the larger the more, so that none is starved; within a size the methods that did best
so far come first, each for a part of the share, and those that were far behind wait until all
others are done. docs/adr/0013-bench-budget.md.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.results.outcome import Outcome
from benchmark.runner.plan import Group

BRIEF_S = 0.5
"""Builds that took less say nothing about growth."""
GROWTH = 1.15
"""Exponent that a group's time is taken to grow with from the size below."""
TARGET_RECALL = 0.9
LAGGARD = 0.2
"""Promise below which a group waits until all others are done."""
POOR = 0.05
"""Promise of a method that didn't reach the target recall at all."""
FIRST = 2.0
"""Stands for the promise of what is to be found out before all."""
SIBLING = 0.8
"""Of its method's promise: what other parameters than those measured promise."""
WEIGHT = 1.5
"""A size's share of the budget, relative to that of the size below."""
EAGER = 3.0
"""Equal parts of a size's share that a group may take which smaller sizes speak for."""
LEAST_S = 5.0
"""A group may ask for so long in any case, or it isn't begun: in less it would answer nothing, and
be taken for slow.
"""
TRY_S, TRY = 15.0, 0.1
"""What a build may take of which nothing is known: so long, or this part of what is left."""
FIRST_USE = 0.2
"""Part of what is left of a budget that a first use of unknown length may take, or an equal part of
it for each method that waits.
"""
ROOM = 1.3
"""A group isn't begun unless there is time for so many times its build."""


@dataclass(frozen=True)
class Allowance:
    """Seconds that a group may take under a budget: in all, and for what follows the build and the
    first point, which may take as long as the build did in any case. `whole_s`: left for all
    groups; a library that compiles itself may take of that, since it does so for all of them: the
    part `first_use` where nobody knows how long that will be.
    """

    total_s: float
    points_s: float
    whole_s: float = math.inf
    first_use: float = FIRST_USE


NOTHING = Allowance(0.0, 0.0, 0.0)
"""Only what is there already is taken."""


@dataclass(frozen=True)
class Taken:
    """Seconds that all processes of a group took, how many there were, and the build's alone."""

    seconds: float
    processes: int
    build_s: float = 0.0

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
    """What is known so far of groups: what they took, and their outcomes."""

    taken: dict[tuple[str, int], Taken] = field(default_factory=dict)
    rows: dict[tuple[str, int], tuple[Outcome, ...]] = field(default_factory=dict)

    def finished(self, group: Group, taken: Taken, outcomes: Sequence[Outcome]) -> None:
        """Remember a group that was measured, in part, whole or in vain; the last word counts."""
        key = str(group.configuration), group.n
        self.rows[key] = tuple(outcomes)
        if outcomes:
            self.taken[key] = taken

    @property
    def outcomes(self) -> list[Outcome]:
        """All of them."""
        return [outcome for rows in self.rows.values() for outcome in rows]

    @property
    def start_s(self) -> float:
        """Seconds that a process takes at least, as seen so far."""
        return min((taken.each for taken in self.taken.values()), default=0.0)

    def others(self) -> dict[int, Taken]:
        """The mean of the groups of each size."""
        sizes = {n for _, n in self.taken}
        return {n: _mean([one for (_, m), one in self.taken.items() if m == n]) for n in sizes}


@dataclass
class Shares:
    """What each size may still take: `ends` holds, by size, the seconds that its share leaves to
    all others.
    """

    ends: dict[int, float] = field(default_factory=dict)

    def left(self, n: int, sizes: Sequence[int], left_s: float) -> float:
        """Seconds of the `left_s` that are size n's, whose share is cut when it is first asked
        for; `sizes`: those that wait, n among them.
        """
        if n not in self.ends:
            weights = [WEIGHT**place for place, _ in enumerate(m for m in sorted(sizes) if m >= n)]
            self.ends[n] = left_s * (1 - 1 / sum(weights))
        return max(0.0, left_s - self.ends[n])


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


def build_seconds(group: Group, history: History) -> float | None:
    """Seconds that a group's build will take, from the same one at the nearest size up to its own,
    else the longest of its method there; None where nothing is known.
    """
    label, method = str(group.configuration), group.configuration.name
    own: dict[int, float] = {}
    others: dict[int, float] = {}
    for (name, n), one in history.taken.items():
        if n <= group.n and name == label:
            own[n] = one.build_s
        if n <= group.n and _is_of(name, method):
            others[n] = max(one.build_s, others.get(n, 0.0))
    known = own or others
    if not known:
        return None
    nearest = max(known)
    return float(known[nearest] * (group.n / nearest) ** _growth_of_build(known))


def _growth_of_build(known: Mapping[int, float]) -> float:
    """The exponent between the two largest sizes, but no less than usual: k-means with more lists
    for more rows grows faster than other builds.
    """
    *_, before, last = [0, *sorted(known)]
    if not before or not known[before] or known[last] < BRIEF_S:
        return GROWTH
    return max(GROWTH, math.log(known[last] / known[before]) / math.log(last / before))


def promise(group: Group, history: History) -> float | None:
    """Speed of the configuration relative to the best one, at recall 0.9 and the nearest size up to
    its own where it was measured, in 0..1; the best of its workloads, k and batches counts. Where
    it wasn't, most of what the method's best parameters promise there. None where nothing is
    known; little where all the time that it was given went by without a result.
    """
    label, method = str(group.configuration), group.configuration.name
    own = [n for (name, n) in history.rows if n <= group.n and name == label]
    if own:
        here = _measured(history, max(own))
        return _share([one for one in here if _label(one) == label], here)
    tried = [n for (name, n) in history.rows if n <= group.n and _is_of(name, method)]
    if not tried:
        return None
    here = _measured(history, max(tried))
    return SIBLING * _share([one for one in here if one.method == method], here)


def _is_of(label: str, method: str) -> bool:
    return label.partition("(")[0] == method


def _measured(history: History, n: int) -> list[Outcome]:
    return [outcome for outcome in history.outcomes if outcome.n == n and outcome.measured]


def _share(own: Sequence[Outcome], here: Sequence[Outcome]) -> float:
    """The greatest share of the best speed that `own` reach at any place; `POOR` without any."""
    best = _speeds(here)
    shares = [speed / best[place] for place, speed in _speeds(own).items() if best[place]]
    return max(shares, default=POOR)


def _speeds(outcomes: Sequence[Outcome]) -> Mapping[tuple[str, int, int], float]:
    """The greatest speed at the target recall by workload, k and batch; what doesn't reach it
    counts for little.
    """
    best: dict[tuple[str, int, int], float] = {}
    for one in outcomes:
        speed = (1.0 if (one.recall or 0) >= TARGET_RECALL else POOR) * rate_of(one)
        place = one.workload, one.k, one.batch
        best[place] = max(speed, best.get(place, 0.0))
    return best


def next_group(remaining: Sequence[Group], history: History) -> Group | None:
    """Without a budget: small sizes first; of each method one group, then the second of each, as
    the grid has them.
    """
    met = _met(history, remaining)
    return min(remaining, key=lambda group: (group.n, _turn(group, met)), default=None)


def next_within(
    waiting: Sequence[Group],
    history: History,
    shares: Shares,
    left_s: float,
    *,
    again: Sequence[Group] = (),
) -> tuple[Group, Allowance] | None:
    """Under a budget of which `left_s` is left: the group to measure next and what it may take.

    `again`: groups that used up what they were allowed; they go on when no hopeful one waits. None
    where no group is likely to get through its build any more.
    """
    found = _next_of(waiting, history, shares, left_s, again)
    if found is None:
        return None
    methods = len({group.configuration.name for group in (*waiting, *again)})
    part = max(FIRST_USE, 1 / methods)
    return found[0], replace(found[1], whole_s=left_s, first_use=part)


def _next_of(
    waiting: Sequence[Group],
    history: History,
    shares: Shares,
    left_s: float,
    again: Sequence[Group],
) -> tuple[Group, Allowance] | None:
    smallest = min((n for _, n in history.rows), default=0)
    promises = {group: _promised(group, history, smallest) for group in (*waiting, *again)}
    hopeful = [group for group in waiting if _hopeful(promises[group])]
    sizes = sorted({group.n for group in hopeful})
    for n in sizes:
        here, share_s = [one for one in hopeful if one.n == n], shares.left(n, sizes, left_s)
        if share_s >= LEAST_S:
            found = _first_that_fits(here, promises, history, share_s)
            if found is not None:
                return found
    rounds = [
        (hopeful, left_s),
        ([group for group in again if _hopeful(promises[group])], left_s),
        ([*waiting, *again], left_s),
    ]
    for groups, seconds in rounds:
        found = _first_that_fits(groups, promises, history, seconds)
        if found is not None:
            return found
    return None


def _promised(group: Group, history: History, smallest: int) -> float:
    """Its promise. Where nothing is known it comes first at the `smallest` size that was measured,
    where it is cheap to know, and last at any other.
    """
    known = promise(group, history)
    if known is not None:
        return known
    return FIRST if group.n <= smallest or not smallest else 0.0


def _hopeful(promised: float) -> bool:
    return promised >= LAGGARD


def _first_that_fits(
    groups: Sequence[Group],
    promises: Mapping[Group, float],
    history: History,
    left_s: float,
) -> tuple[Group, Allowance] | None:
    if left_s <= 0:
        return None
    turns = _turns(groups, promises, history)
    for group in sorted(groups, key=lambda group: (turns[group], -promises[group], group.n)):
        build_s = build_seconds(group, history)
        if ROOM * (build_s or 0.0) > left_s:
            continue
        parts = EAGER if build_s is not None else 1.0
        same = sum(turn == turns[group] for turn in turns.values())
        points_s = min(left_s, max(LEAST_S, parts * left_s / same))
        tried_s = max(TRY_S, TRY * left_s, points_s) + points_s
        return group, Allowance(left_s if build_s is not None else min(left_s, tried_s), points_s)
    return None


def _turns(
    groups: Sequence[Group], promises: Mapping[Group, float], history: History
) -> Mapping[Group, int]:
    """When each has its turn: the most promising of each method, then the second of each, and so
    on. Those of one turn share what there is, and leave to the next what they don't need.
    """
    met = _met(history, groups)
    turns: dict[Group, int] = {}
    for group in sorted(groups, key=lambda group: -promises[group]):
        turns[group] = _turn(group, met)
        met[_method_at(group)] += 1
    return turns


def _met(history: History, waiting: Sequence[Group]) -> Counter[tuple[str, int]]:
    """How many groups of a method are done with, by method and size: not those that an earlier run
    began and that wait to go on.
    """
    begun = {(str(group.configuration), group.n) for group in waiting}
    done = [key for key in history.rows if key not in begun]
    return Counter((label.partition("(")[0], n) for label, n in done)


def _turn(group: Group, met: Mapping[tuple[str, int], int]) -> int:
    """How many of its method come before it. Parameters that are efforts have the same turn: they
    are for different recalls.
    """
    return met[_method_at(group)] if group.method.effort else 0


def _method_at(group: Group) -> tuple[str, int]:
    return group.configuration.name, group.n


def remaining_seconds(remaining: Sequence[Group], history: History) -> float | None:
    """What all remaining groups will take, one after the other; None where one is unknown."""
    expected = [expected_seconds(group, history) for group in remaining]
    known = [seconds for seconds in expected if seconds is not None]
    return sum(known) if len(known) == len(expected) else None


def time_left(
    worth: Sequence[Group], history: History, machines: int, budget_s: float | None
) -> str:
    """What `worth` will take on so many machines, for people: under a budget all of it, else what
    is left at the smallest size, since that will show what is worth it at larger ones. "" where
    that isn't known.
    """
    smallest = min((group.n for group in worth), default=0)
    here = [group for group in worth if group.n == smallest]
    seconds = remaining_seconds(here if budget_s is None else worth, history)
    if not worth or seconds is None:
        return ""
    seconds /= max(1, machines)
    if budget_s is not None:
        return f", about {_duration(min(seconds, max(0.0, budget_s)))} left"
    where = f" at {smallest:,} rows" if len(here) < len(worth) else ""
    return f", about {_duration(seconds)} left{where}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _label(outcome: Outcome) -> str:
    return f"{outcome.method}({outcome.build.replace(',', ', ')})"


def rate_of(outcome: Outcome) -> float:
    """Vectors a second, of `all` with what building takes; 0 without figures."""
    if outcome.workload == "all":
        return outcome.n / outcome.total_s if outcome.total_s else 0.0
    return outcome.qps or 0.0
