"""Which configurations a larger size leaves out, by what a smaller one showed of them. Pure.

All parameters of all methods at all sizes would take days, nearly all of it for what never comes
near the best. So a size takes over from the one below, per method, as few configurations as are
about as good as all of them together, and at most half of them; and of methods none that was far
behind everywhere. Within a size a configuration is asked for the larger k only if it was better
than the method's others on the average. docs/adr/0017-bench-narrowing.md.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmark.results.outcome import LEVELS, Outcome, Status
from benchmark.runner.budget import History, rate_of
from benchmark.runner.plan import Group

BEHIND = 10
"""Times slower than the best at each place: such a configuration is left out."""
AS_GOOD = 0.8
"""Of a method's best speed at a place: what has that stands in for it."""
HOPELESS = {Status.TIMEOUT, Status.OUT_OF_MEMORY}

Place = tuple[str, int, float]
"""Workload (queries one at a time or in batches), k, recall."""
Speeds = Mapping[Place, float]


@dataclass(frozen=True)
class Known:
    """What other groups showed. `fastest`: by k the fastest way to the lists of all rows of this
    size, so far; `siblings`: the greatest speeds here of other parameters of the method;
    `left_out`: why nothing of the group is worth measuring, "" where it is.
    """

    fastest: Mapping[int, Outcome] = field(default_factory=dict)
    siblings: Speeds = field(default_factory=dict)
    left_out: str = ""


NOTHING_KNOWN = Known()


def why_left_out(group: Group, history: History) -> str | None:
    """Why the group's configuration isn't measured at the group's size, as a sentence; None where
    it is, as everything is of whose smaller sizes nothing is known.
    """
    label, method = str(group.configuration), group.configuration.name
    own = [n for (name, n), rows in history.rows.items() if name == label and n < group.n and rows]
    if not own:
        return None
    n = max(own)
    if {row.status for row in history.rows[label, n]} <= HOPELESS:
        return f"had no figures on {n:,} rows, within the same limits"
    speeds = {name: _speeds(rows) for (name, m), rows in history.rows.items() if m == n}
    best = _best(speeds.values())
    mine = speeds[label]
    if mine and all(BEHIND * speed < best[place] for place, speed in mine.items()):
        return f"{BEHIND} times slower than the best, or more, wherever measured on {n:,} rows"
    if not group.method.effort:
        return None  # its parameters are its efforts: each is for another recall
    siblings = {name: own for name, own in speeds.items() if name.partition("(")[0] == method}
    chosen = enough_of(siblings)
    if not chosen or label in chosen:
        return None
    short = "no better than" if mine else f"never at recall {LEVELS[0]:.2f}, unlike"
    return f"on {n:,} rows {short} {' and '.join(chosen)}"


def enough_of(speeds: Mapping[str, Speeds]) -> list[str]:
    """The fewest of a method's configurations that are about as good as all of them at each place,
    those that are it at most places first; at most half of all, but one.
    """
    best = _best(speeds.values())
    wanting, chosen = set(best), list[str]()
    while wanting and len(chosen) < max(1, len(speeds) // 2):
        good = {
            name: {place for place in wanting if own.get(place, 0.0) >= AS_GOOD * best[place]}
            for name, own in speeds.items()
        }
        most = max(good, key=lambda name: (len(good[name]), _closeness(speeds[name], best)))
        wanting -= good[most]
        chosen.append(most)
    return chosen


def speeds_of_siblings(group: Group, history: History) -> Speeds:
    """The greatest speed at each place of the group's size that other parameters of its method
    reached; nothing for methods whose parameters are their efforts.
    """
    label, method = str(group.configuration), group.configuration.name
    if not group.method.effort:
        return {}
    return _best(
        _speeds(rows)
        for (name, n), rows in history.rows.items()
        if n == group.n and name != label and name.partition("(")[0] == method
    )


def adds_nothing(own: Sequence[Outcome], siblings: Speeds) -> bool:
    """Whether what was measured is on the average (the geometric mean of the ratios) no faster than
    the best of `siblings` at the same places, and reaches no place that none of them does.
    """
    mine = _speeds(own)
    if not siblings or mine.keys() - siblings.keys():
        return False
    return sum(math.log(speed / siblings[place]) for place, speed in mine.items()) <= 0


def _closeness(own: Speeds, best: Speeds) -> float:
    return sum(speed / best[place] for place, speed in own.items())


def _best(speeds: Iterable[Speeds]) -> dict[Place, float]:
    best: dict[Place, float] = {}
    for own in speeds:
        for place, speed in own.items():
            best[place] = max(speed, best.get(place, 0.0))
    return best


def _speeds(outcomes: Sequence[Outcome]) -> Speeds:
    """The greatest speed at each place that was reached."""
    best: dict[Place, float] = {}
    for one in outcomes:
        if not one.measured or one.memory_limit_bytes or not rate_of(one):
            continue
        kind = one.workload if one.batch <= 1 else "batches"
        for level in LEVELS:
            if (one.recall or 0.0) >= level:
                place = kind, one.k, level
                best[place] = max(rate_of(one), best.get(place, 0.0))
    return best


def fastest_of_all(outcomes: Iterable[Outcome], n: int) -> dict[int, Outcome]:
    """By k the fastest way to the lists of all n rows at the usual recall."""
    fastest: dict[int, Outcome] = {}
    for one in outcomes:
        fits = (one.workload, one.n) == ("all", n) and (one.recall or 0.0) >= LEVELS[1]
        if fits and one.total_s and one.measured:
            known = fastest.get(one.k)
            if known is None or one.total_s < (known.total_s or 0.0):
                fastest[one.k] = one
    return fastest
