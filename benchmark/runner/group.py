"""One group on the machine that measures: build once, ask in many ways, leave a file for each.

Owns the order within a group. A Dask task calls `run_group`; everything measured runs in child
processes, everything that is there already is kept.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmark.results.file import Result
from benchmark.results.outcome import Outcome, Status, Workload
from benchmark.runner.asking import Asker, Within
from benchmark.runner.budget import Allowance
from benchmark.runner.child import STACKS_BYTES
from benchmark.runner.efforts import next_to_levels
from benchmark.runner.forecast import Forecast
from benchmark.runner.narrowing import NOTHING_KNOWN, Known, adds_nothing
from benchmark.runner.plan import (
    ENOUGH_RECALL,
    Group,
    Point,
    ks_for,
    limited_point,
    points_of,
    spread,
)
from benchmark.runner.possible import obstacle
from benchmark.runner.process import Ended
from benchmark.runner.request import noted
from benchmark.runner.rows import Left, result_of
from benchmark.runner.store import Place, Store, Stored
from benchmark.runner.truth import truth_path
from nearfield.neighbours import NeighbourTable, read_part

FEW_KS = 2
"""So many of the smallest k show whether parameters are worth asking for larger ones."""
KNOWN_FIRST_USE = 0.6
"""Part of what is left of a budget that the first use of a library may take whose length an earlier
run has shown; one that is known to take longer isn't begun.
"""


@dataclass(frozen=True)
class GroupReport:
    """What a group gave. `kept` of its points were there; `unmeasured`: rows without a file.

    `seconds`: what all its measured processes took, those of earlier runs included; `build_s`: what
    building and saving the index took; `cold_s`: what a first use of the library took before.
    """

    group: Group
    outcomes: tuple[Outcome, ...]
    unmeasured: tuple[Outcome, ...]
    measured: int
    kept: int
    seconds: float
    build_s: float = 0.0
    cold_s: float = 0.0

    @property
    def dropped(self) -> bool:
        """Whether the budget left something out."""
        return _any_dropped(self.unmeasured)


def _any_dropped(rows: Iterable[Outcome]) -> bool:
    return any(row.status is Status.DROPPED for row in rows)


def run_group(
    place: Place, group: Group, allowed: Allowance | None, known: Known = NOTHING_KNOWN
) -> GroupReport:
    """Task: measure what isn't there yet, within what a budget allows and as far as what is known
    of others makes it worth while.

    Raises `DiskFull`, or `Infrastructure` where the container engine is gone; whatever a library
    does becomes a row.
    """
    with Asker(place, group) as asker:
        run = _GroupRun(asker, allowed, known)
        run.all_points()
    return GroupReport(
        group,
        tuple(run.outcomes),
        tuple(run.unmeasured),
        run.measured,
        run.kept,
        run.seconds,
        run.build_s,
        asker.cold_s,
    )


class _GroupRun:
    """The state of one group while it is measured."""

    def __init__(self, asker: Asker, allowed: Allowance | None, known: Known) -> None:
        self.place, self.group, self.asker = asker.place, asker.group, asker
        self.known = known
        self.allowed, self.began = allowed, time.monotonic()
        self.deadline = None if allowed is None else self.began + allowed.total_s
        self.store = Store(self.place, self.group)
        self.forecast = Forecast(self.store, known.fastest)
        self.outcomes: list[Outcome] = []
        self.unmeasured: list[Outcome] = []
        self.took: dict[Point, float] = {}
        """Seconds that processes took."""
        self.measured = self.kept = 0
        self.seconds = self.build_s = 0.0
        self.lost = self.asking = False

    def all_points(self) -> None:
        """Every point that can be measured, then the one under a memory limit."""
        if (why := obstacle(self.place, self.group)) is not None:
            self.unmeasured += self.store.without_figures(*why)
            return
        facts: Mapping[str, Any] | None = {}
        if "queries" in self.group.method.workloads:
            facts = self.store.build_facts() or self._build()
        if facts is None:
            self._rest_of_earlier_runs()
            self._graphs_alone()
            return
        self.build_s = facts.get("build_s", 0.0) + facts.get("save_s", 0.0)
        self.seconds += facts.get("seconds", 0.0)
        suggested = {int(k): efforts for k, efforts in facts.get("efforts", {}).items()}
        points = points_of(self.group, self.place.settings, suggested, self.place.data.asked)
        limited = limited_point(points, facts.get("index_bytes", 0))
        there: set[Point] = set()
        if self._narrow:
            for point in points:
                if (stored := self.store.kept(point)) is not None:
                    self._take(stored, new=False)
                    there.add(point)
        for point in self._in_order(points, limited):
            if point not in there and (point is limited or not self._enough(point)):
                self._point(point)
        shutil.rmtree(self.store.index, ignore_errors=True)

    def _rest_of_earlier_runs(self) -> None:
        """Without an index, what was asked of one earlier: a run for other k may have built it."""
        rows = [stored for _, stored in self.store.all_kept()]
        for stored in rows:
            self._take(stored, new=False)
        there = {(one.workload, one.k) for one in self.outcomes}
        self.unmeasured = [one for one in self.unmeasured if (one.workload, one.k) not in there]

    def _graphs_alone(self) -> None:
        """The lists that a method makes itself, which need no index."""
        for point in points_of(self.group, self.place.settings, {}, self.place.data.asked):
            if point.stage == "graph" and self.store.kept(point) is None:
                self._point(point)

    @property
    def _narrow(self) -> bool:
        """Whether only efforts next to the tables' recalls are measured: not where a user names
        the efforts, or wants all.
        """
        return not self.place.settings.full and not self.group.configuration.efforts

    def _in_order(self, points: Sequence[Point], limited: Point | None) -> Iterable[Point]:
        """Cheapest first, the one under a memory limit last; under a budget what says most first:
        something of each workload and k, the one under a limit, then the rest. What is worth it
        alone comes in an order of its own.
        """
        if self._narrow:
            return self._narrowed(points, limited)
        last = [] if limited is None else [limited]
        if self.allowed is None:
            return [*points, *last]
        lines = len({(point.k, point.workload) for point in points})
        order = spread(points)
        return [*order[:lines], *last, *order[lines:]]

    def _narrowed(self, points: Sequence[Point], limited: Point | None) -> Iterator[Point]:
        """What lies next to the tables' recalls. Where other parameters of the method have figures
        already, the first few k come first, and the larger ones only if that was worth it.
        """
        ks = ks_for(self.group.n, self.place.settings.ks)
        few = ks[:FEW_KS] if self.known.siblings else ks
        first = [point for point in points if point.k in few]
        rest = [point for point in points if point.k not in few]
        yield from next_to_levels(first, limited, self._recalls)
        if (
            rest
            and not _any_dropped(self.unmeasured)
            and adds_nothing(self.outcomes, self.known.siblings)
        ):
            self._leave_out_k(few)
        elif rest:
            yield from next_to_levels(rest, None, self._recalls)

    def _leave_out_k(self, few: Sequence[int]) -> None:
        """Rows for the larger k that aren't asked for; what an earlier run measured stays."""
        there = {(one.workload, one.k) for one in self.outcomes}
        points = [
            point
            for point in self.store.stand_ins()
            if point.k not in few and (point.workload, point.k) not in there
        ]
        why = f"for k up to {max(few)} no better than other parameters of the method"
        self.unmeasured += self.store.without_figures(Status.LEFT_OUT, why, points)

    def _recalls(self, workload: Workload, k: int) -> Mapping[int, float]:
        """Recall by effort of what was measured of the index."""
        return {
            one.effort: one.recall or 0.0
            for one in self.outcomes
            if (one.workload, one.k) == (workload, k)
            and one.measured
            and one.load_s is not None
            and one.memory_limit_bytes is None
        }

    def _enough(self, point: Point) -> bool:
        """Whether a lower effort found all that there is to find."""
        return point.stage == "search" and any(
            (outcome.workload, outcome.k) == (point.workload, point.k)
            and outcome.load_s is not None
            and outcome.memory_limit_bytes is None
            and (outcome.recall or 0) >= ENOUGH_RECALL
            and outcome.effort < (point.effort or 0)
            for outcome in self.outcomes
        )

    def _build(self) -> Mapping[str, Any] | None:
        """Build the index; None where that fails: then each workload and k has a row for it."""
        stand_ins = self.store.stand_ins()
        failures = [self.store.kept(point) for point in stand_ins]
        if all(failures):
            for stored in failures:
                self._take(stored, new=False)
            return None
        if self._spent():
            self._drop(stand_ins)
            return None
        ended, out = self._first_use(), self.asker.scratch
        if ended is None:
            ended, out = self.asker.build(Within(self._left()))
        facts = noted(out)
        if "index_bytes" in facts:
            facts = {**facts, **self._adding(facts, ended), "seconds": ended.seconds}
            self.store.keep_index(self.asker.scratch / "index", facts)
            return facts
        if self._cut_off(ended):
            self._drop(stand_ins, ended)
            return None
        for point in stand_ins:
            rows = self.store.without_figures(ended.status, f"build: {ended.reason}", [point])
            nothing = Result(tuple(rows), np.empty(0, np.int32), {})
            self._take(self.store.keep(point, nothing, ended.seconds / len(stand_ins)), new=True)
        return None

    def _adding(self, facts: Mapping[str, Any], ended: Ended) -> dict[str, Any]:
        """How more rows get in, and what it takes; it is the last thing that a builder does."""
        if ended.status is not Status.OK:
            return {"add_way": f"adding: {ended.status}, {ended.reason}"}
        if "add_s" in facts:
            return {"add_way": "add"}
        return {"add_way": "rebuild", "add_s": facts["build_s"], "add_rows": self.asker.rows_to_add}

    def _point(self, point: Point) -> None:
        """Measure a point unless its result is there."""
        kept = self.store.kept(point)
        if kept is not None:
            self._take(kept, new=False)
            return
        if self._spent() or self._too_long(point):
            self._drop([point])
            return
        if self._not_worth(point):
            return
        if point.stage == "search" and not self._index_is_there():
            return
        truth = self._truth(point)
        ended, out = self._first_use(), self.asker.scratch
        if ended is None:
            within = Within(self._left(), self._memory(point))
            ended, out = self.asker.ask(point, self.store.index, truth.rows, within)
        self._from_now()
        if self._cut_off(ended):
            self._drop([point], ended)
            return
        blank = replace(self.store.blank(point), cold_s=self.asker.first_use_s)
        left = Left(point, self._understood(point, ended), out, blank)
        self.took[point] = ended.seconds
        result = result_of(left, self.group, self.place.data, truth)
        self._take(self.store.keep(point, result, ended.seconds), new=True)

    def _understood(self, point: Point, ended: Ended) -> Ended:
        """A library that fails under a memory limit with an index that it read without one lacks
        memory, whatever it says.
        """
        read = any(outcome.load_s is not None and outcome.measured for outcome in self.outcomes)
        if point.limit_bytes is None or ended.status is not Status.FAILED or not read:
            return ended
        said = f"works without the memory limit, not under it: {ended.reason}"
        return replace(ended, status=Status.OUT_OF_MEMORY, reason=said)

    def _index_is_there(self) -> bool:
        """Whether the index can be asked, built again where an earlier run was cut off."""
        if not self.lost and not self.store.index_is_there():
            self.lost = self._build() is None
        return not self.lost

    def _too_long(self, point: Point) -> bool:
        """Whether it is foretold to take longer than what is left of the budget."""
        left = self._left()
        if left is None:
            return False
        foretold = self.forecast.seconds(point, self.outcomes)
        least_s = self.forecast.least_seconds(point, self.took)
        return max(least_s, foretold[0] if foretold is not None else 0.0) > left

    def _not_worth(self, point: Point) -> bool:
        """Whether it is foretold to take too long in any case; then there is a row."""
        why = self.forecast.against(point, self.outcomes, self.build_s)
        if why is not None:
            self.unmeasured += self.store.without_figures(*why, [point])
        return why is not None

    def _take(self, stored: Stored | None, *, new: bool) -> None:
        if stored is not None:
            self.outcomes += stored.outcomes
            self.seconds += stored.seconds
            self.measured += new
            self.kept += not new

    def _truth(self, point: Point) -> NeighbourTable:
        return read_part(truth_path(self.place.directory, point.workload, self.group.n))

    def _memory(self, point: Point) -> int | None:
        """What a container may take where the process has its own, lower limit: as much, beside
        what a process of this method has before it touches the index. None: the usual cap.
        """
        bare = [one.baseline_bytes for one in self.outcomes if one.baseline_bytes]
        if point.limit_bytes is None or self.place.settings.container is None or not bare:
            return None
        return max(bare) + point.limit_bytes + STACKS_BYTES

    def _first_use(self) -> Ended | None:
        """Have a library that compiles itself do so, at the cost of the whole budget, not of what
        this group may take; how that ended if it went wrong.
        """
        if not self.asker.first_use_waits:
            return None
        end = None if self.allowed is None else self.began + self.allowed.whole_s
        before, most_s, expected_s = self.asker.cold_s, None, self.asker.first_use_expected_s
        if self.allowed is not None and end is not None:
            left_s = max(0.0, end - time.monotonic())
            most_s = left_s * (self.allowed.first_use if expected_s is None else KNOWN_FIRST_USE)
            if expected_s is not None and expected_s > most_s:
                return Ended(Status.TIMEOUT, f"first use: takes about {expected_s:.0f} s", 0.0)
        ended = self.asker.first_use(most_s)
        if self.deadline is not None and end is not None:
            self.deadline = min(end, self.deadline + self.asker.cold_s - before)
        if ended is None or ended.status is Status.OK:
            return None
        return replace(ended, reason=f"first use: {ended.reason}")

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _from_now(self) -> None:
        """After the first point, what may be spent on the others: no less than on building the
        index.
        """
        if self.allowed is not None and self.deadline is not None and not self.asking:
            self.asking = True
            asking_s = max(self.allowed.points_s, self.build_s)
            self.deadline = min(self.deadline, time.monotonic() + asking_s)

    def _spent(self) -> bool:
        return self._left() == 0

    def _cut_off(self, ended: Ended) -> bool:
        """Whether the budget stopped a process, not the time-out."""
        early = ended.seconds < self.place.settings.timeout_s
        return ended.status is Status.TIMEOUT and early

    def _drop(self, points: Sequence[Point], ended: Ended | None = None) -> None:
        """Rows for what the budget leaves out, or what isn't worth it; `ended`: what it ended."""
        why = (Status.DROPPED, "left out by the budget")
        if ended is not None:
            why = (Status.DROPPED, f"left out by the budget: {ended.reason}")
        if self.known.left_out:
            why = (Status.LEFT_OUT, self.known.left_out)
        self.unmeasured += self.store.without_figures(*why, points)
