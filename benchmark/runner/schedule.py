"""Groups on machines: one at a time on each, the next one chosen when a machine is free.

Owns the Dask side: a task holds its whole machine, whatever number of workers runs there. What
depends on a machine (what is installed there, which results are its own) is asked of one, never
taken from the client's. Prints one line per finished group on stderr, with an estimate of what is
left.
"""

import errno
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from distributed import Client, Future, as_completed

from benchmark.runner.budget import (
    NOTHING,
    Allowance,
    History,
    Shares,
    Taken,
    next_group,
    next_within,
    time_left,
)
from benchmark.runner.group import GroupReport, run_group
from benchmark.runner.narrowing import (
    Known,
    fastest_of_all,
    speeds_of_siblings,
    why_left_out,
)
from benchmark.runner.parents import close_parents
from benchmark.runner.plan import Group
from benchmark.runner.stopping import measuring, stop_groups
from benchmark.runner.store import Place
from nearfield.cluster import on_workers, workers_by_host
from nearfield.errors import Infrastructure, NearfieldError
from nearfield.machine import machine_facts


def run_groups(
    client: Client,
    place: Place,
    groups: Sequence[Group],
    budget_s: float | None,
    on_report: Callable[[GroupReport], None],
) -> None:
    """Measure all groups, as far as the budget goes.

    Of those that it leaves out, what an earlier run measured is still reported, the rest as
    dropped. A group may be reported more than once: the last report is the whole of it, and
    `measured` of each counts what is new in it.

    A machine of the cluster gets one group at a time. A group whose task fails doesn't stop the
    others; they are listed at the end. Raises `Infrastructure` for them, `DiskFull` at once. When
    this returns or raises, nothing is measured any more on any machine.
    """
    run = uuid4().hex
    # of a run whose client was killed
    on_workers(client, stop_groups, place.directory)
    try:
        _Schedule(client, place, groups, budget_s, on_report, run).run()
    finally:
        with suppress(Infrastructure):  # a scheduler that is gone hides no other error
            on_workers(client, stop_groups, place.directory, run)
            # a worker that is gone has taken its parents along
            on_workers(client, close_parents)


def measure_group(
    run: str, place: Place, group: Group, allowed: Allowance | None, known: Known
) -> GroupReport:
    """Task: `run_group` for a run, until that has ended."""
    with measuring(place.directory, run):
        return run_group(place, group, allowed, known)


class _Schedule:
    def __init__(
        self,
        client: Client,
        place: Place,
        groups: Sequence[Group],
        budget_s: float | None,
        on_report: Callable[[GroupReport], None],
        run: str,
    ) -> None:
        self.client, self.place, self.on_report, self.name = client, place, on_report, run
        self.remaining = list(groups)
        self.again: list[Group] = []
        self.once: set[Group] = set()
        """Groups that may go on, should there be time for what they were not allowed."""
        self.total, self.budget_s = len(groups), budget_s
        self.history, self.shares = History(), Shares()
        self.started = time.monotonic()
        self.failed: list[str] = []
        self.running: dict[Future, tuple[str, Group]] = {}
        self.machines = one_worker_per_host(client)

    def run(self) -> None:
        if self.budget_s is not None:
            self._remember()
        queue: Any = as_completed([])
        for address in self.machines:
            self._start(address, queue)
        for future in queue:
            address, group = self.running.pop(future)
            self._finish(future, group)
            future.release()
            self._start(address, queue)
        if self.failed:
            raise Infrastructure(
                f"{len(self.failed)} of {self.total} groups could not be measured:\n  "
                + "\n  ".join(self.failed)
                + "\nWhat was finished is kept: run the same command again to try the rest"
            )
        kinds = self._kinds()
        for group in self.remaining:
            known = self._known(group, left_out=self._why_left_out(group) or "")
            self.on_report(self._asked(kinds, group, known))

    def _remember(self) -> None:
        """Take what earlier runs left before any time is given away: it says what is worth it."""
        kinds = self._kinds()
        for group in list(self.remaining):
            report = self._asked(kinds, group, self._known(group))
            if report.kept:
                self._note(report)
            if not report.dropped:
                self.remaining.remove(group)
                self.on_report(report)
                self._say(report)

    def _kinds(self) -> list[str]:
        """A worker of each kind of machine: results are those of their processor."""
        machines = on_workers(self.client, machine_facts, workers=one_worker_per_host(self.client))
        return list(
            {facts.processor.model: address for address, facts in machines.items()}.values()
        )

    def _asked(self, addresses: Iterable[str], group: Group, known: Known) -> GroupReport:
        """What earlier runs left of a group, by the machine that has most of it; measures nothing.
        Those that are asked have nothing else to do.
        """
        asked = [self._given(address, group, NOTHING, known) for address in addresses]
        reports: list[GroupReport] = [future.result() for future in asked]
        if not reports:
            raise Infrastructure("no worker of the cluster answers: see their logs")
        return max(reports, key=lambda report: report.kept)

    def _given(self, address: str, group: Group, allowed: Allowance | None, known: Known) -> Future:
        return self.client.submit(
            measure_group,
            self.name,
            self.place,
            group,
            allowed,
            known,
            workers=[address],
            allow_other_workers=False,
            pure=False,
        )

    def _note(self, report: GroupReport) -> None:
        taken = Taken(report.seconds, report.measured + report.kept, report.build_s)
        self.history.finished(report.group, taken, report.outcomes)

    def _left(self) -> float | None:
        if self.budget_s is None:
            return None
        return self.budget_s - (time.monotonic() - self.started)

    def _next(self) -> tuple[Group, Allowance | None] | None:
        left_s = self._left()
        if left_s is None:
            group = next_group(self.remaining, self.history)
            return None if group is None else (group, None)
        return next_within(self.remaining, self.history, self.shares, left_s, again=self.again)

    def _worth(self, address: str) -> tuple[Group, Allowance | None] | None:
        """The next group that is worth it; those before it have rows that say why they aren't.
        `address`: a machine that is free.
        """
        while (found := self._next()) is not None:
            group = found[0]
            why = self._why_left_out(group)
            if why is None:
                break
            self.remaining.remove(group)
            report = self._asked([address], group, Known(left_out=why))
            if report.kept:
                self._note(report)
            self.on_report(report)
            self._say(report)
        return found

    def _known(self, group: Group, *, left_out: str = "") -> Known:
        fastest = fastest_of_all(self.history.outcomes, group.n)
        return Known(fastest, speeds_of_siblings(group, self.history), left_out)

    def _why_left_out(self, group: Group) -> str | None:
        """Why a group that hasn't been begun isn't worth it, by what is known so far."""
        if self.place.settings.full or group not in self.remaining:
            return None
        return why_left_out(group, self.history)

    def _start(self, address: str, queue: Any) -> None:
        found = self._worth(address)
        if found is None:
            return
        group, allowed = found
        if group in self.remaining:
            self.remaining.remove(group)
            self.once.add(group)
        else:
            self.again.remove(group)
            self.once.discard(group)
        future = self._given(address, group, allowed, self._known(group))
        self.running[future] = (address, group)
        queue.add(future)

    def _finish(self, future: Future, group: Group) -> None:
        error = None if future.status == "finished" else future.exception()
        if error is not None and (isinstance(error, NearfieldError) or _is_full(error)):
            raise error
        if error is not None:
            self.failed.append(f"{group.label}: {error}")
            return
        report: GroupReport = future.result()
        self._note(report)
        if report.dropped and group in self.once:
            self.again.append(group)
        self.on_report(report)
        self._say(report)

    def _say(self, report: GroupReport) -> None:
        waiting = [*self.remaining, *self.again]
        done = self.total - len(waiting) - len(self.running)
        parts = [f"{report.measured} measured" if report.measured else ""]
        parts += [f"{report.kept} kept" if report.kept else ""]
        parts += [f"{len(report.unmeasured)} not measured" if report.unmeasured else ""]
        parts += [f"first use of the library {report.cold_s:.0f} s" if report.cold_s else ""]
        what = ", ".join(part for part in parts if part)
        text = f"{report.group.label}: {what}; {done} of {self.total} groups{self._time_left()}"
        print(text, file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        unfinished = [*self.remaining, *self.again, *(group for _, group in self.running.values())]
        worth = [group for group in unfinished if self._why_left_out(group) is None]
        # one whose group has just ended is about to get the next
        machines = min(len(self.machines), len(worth))
        return time_left(worth, self.history, machines, self._left())


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def one_worker_per_host(client: Client) -> list[str]:
    """Addresses of one worker on each host of the cluster."""
    return [addresses[-1] for addresses in workers_by_host(client)]
