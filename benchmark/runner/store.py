"""Where a group's results lie, and which of them still hold when a benchmark is run again.

Owns names, fingerprints and the rows before there are figures. Refuses processes.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.results.file import Result, read_outcomes, write_result
from benchmark.results.growth import growth_of
from benchmark.results.outcome import Outcome, Status, Workload
from benchmark.runner.data import Data
from benchmark.runner.plan import (
    REPEATS,
    Group,
    Point,
    Settings,
    batches_for,
    ks_for,
    parameters_text,
)
from nearfield.errors import NearfieldError
from nearfield.files import fsync_path
from nearfield.machine import machine_facts
from nearfield.manifest import Manifest, fingerprint, read_manifest, write_manifest

INDEX_KIND = "benchmark index"
RECORD_KIND = "benchmark group"


@dataclass(frozen=True)
class Place:
    """Where a group works: the benchmark's directory, its data, and how to measure."""

    directory: Path
    data: Data
    settings: Settings


@dataclass(frozen=True)
class Stored:
    """A result that is there: its rows, and the seconds that its process took."""

    outcomes: tuple[Outcome, ...]
    seconds: float


class Store:
    """The files of one group."""

    def __init__(self, place: Place, group: Group) -> None:
        self.place, self.group = place, group
        self.index = place.directory / "indexes" / group.name
        self.record = place.directory / "results" / f"{group.name}.index.json"
        self.mark = circumstances(place, group)

    def build_facts(self) -> Mapping[str, Any] | None:
        """Facts of an earlier build that still tell all efforts that are asked for, else None."""
        facts = self._recorded()
        wanted = {str(k) for k in ks_for(self.group.n, self.place.settings.ks)}
        named = bool(self.group.configuration.efforts)
        return facts if facts and (named or wanted <= set(facts["efforts"])) else None

    def _recorded(self) -> Mapping[str, Any]:
        """Facts of an earlier build, for whichever k; empty where there is none that holds."""
        try:
            record = read_manifest(self.record, kind=RECORD_KIND)
        except NearfieldError:
            return {}
        return record.facts if record.fingerprint == self.mark else {}

    def index_is_there(self) -> bool:
        """Whether the index lies there whole. Cost: one read of it."""
        try:
            found = read_manifest(self.index / "manifest.json", kind=INDEX_KIND)
        except NearfieldError:
            return False
        return found.fingerprint == self.mark

    def keep_index(self, made: Path, facts: Mapping[str, Any]) -> None:
        """Give the finished index `made` its place, and write down what building it took. What an
        earlier build of the same told of other k stays.
        """
        efforts = {**self._recorded().get("efforts", {}), **facts["efforts"]}
        facts = {**facts, "efforts": efforts}
        shutil.rmtree(self.index, ignore_errors=True)
        for name in facts["files"]:
            fsync_path(made / name)
        made.rename(self.index)
        for path, kind, files in (
            (self.index / "manifest.json", INDEX_KIND, facts["files"]),
            (self.record, RECORD_KIND, ()),
        ):
            write_manifest(
                path, kind=kind, fingerprint=self.mark, format_version=1, files=files, facts=facts
            )

    def kept(self, point: Point) -> Stored | None:
        """The result of an earlier measurement that still holds, else None.

        One that was stopped holds unless it may now take longer, or more memory.
        """
        found = read_outcomes(self._path(point))
        if found is None or found[0].fingerprint != self._point_mark(point):
            return None
        manifest, outcomes = found
        limits, settings = manifest.facts, self.place.settings
        stopped = {outcome.status for outcome in outcomes}
        longer = Status.TIMEOUT in stopped and limits["timeout_s"] < settings.timeout_s
        larger = Status.OUT_OF_MEMORY in stopped and limits["memory_bytes"] < settings.memory_bytes
        return None if longer or larger else Stored(tuple(outcomes), limits["seconds"])

    def all_kept(self) -> list[tuple[Point, Stored]]:
        """All searches and graphs of this very group that earlier runs left and that still hold,
        whichever k and efforts they were asked for.
        """
        found = []
        for path in sorted(
            self.record.parent.glob(f"{self.group.method.name}-{self.group.n}-*.h5")
        ):
            read = read_outcomes(path, verify=False)
            for point in () if read is None else points_behind(read[1], self.place.data.asked):
                mine = point.stage != "build" and self._path(point) == path
                stored = self.kept(point) if mine else None
                if stored is not None:
                    found.append((point, stored))
        return found

    def keep(self, point: Point, result: Result, seconds: float) -> Stored:
        """Write the result of a point whose process took so long; returns it as kept."""
        path, mark, settings = self._path(point), self._point_mark(point), self.place.settings
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        outcomes = tuple(
            replace(outcome, measured_at=now, configuration=mark, file=f"results/{path.name}")
            for outcome in result.outcomes
        )
        limits = {"timeout_s": settings.timeout_s, "memory_bytes": settings.memory_bytes}
        write_result(
            path,
            replace(result, outcomes=outcomes),
            fingerprint=mark,
            facts={**limits, "seconds": seconds},
        )
        return Stored(outcomes, seconds)

    def foretold_seconds(self, point: Point) -> tuple[float, int] | None:
        """Seconds that one repetition of a point will take, from smaller sizes of the same, and
        the largest of these; at least linear growth. None where nothing is known.
        """
        blank = self.blank(point)
        known = [
            (outcome.n, outcome.repetition_seconds[0])
            for outcome in self._smaller
            if _same_way(outcome, blank)
        ]
        if not known:
            return None
        largest, seconds = max(known)
        growth = growth_of([n for n, _ in known], [cost for _, cost in known])
        exponent = max(1.0, growth.exponent if growth is not None else 1.0)
        return seconds * (self.group.n / largest) ** exponent, largest

    @cached_property
    def _smaller(self) -> list[Outcome]:
        """What these parameters gave at smaller sizes, as far as it holds here and today."""
        found: list[Outcome] = []
        marks: dict[int, str] = {}
        for path in self.record.parent.glob(f"{self.group.method.name}-*.h5"):
            read = read_outcomes(path, verify=False)
            rows = [] if read is None else [one for one in read[1] if one.n < self.group.n]
            if read is None or not rows:
                continue
            group = Group(rows[0].n, self.group.configuration)
            mark = marks.setdefault(group.n, circumstances(self.place, group))
            if holds(read[0], rows, mark, self.place.data.asked):
                found += [outcome for outcome in rows if outcome.measured]
        return found

    def blank(self, point: Point) -> Outcome:
        """The row of a point before there are figures of its own; `batch` is its first."""
        method, data, settings = self.group.method, self.place.data, self.place.settings
        built = (self.build_facts() or {}) if point.stage == "search" else {}
        tuned = point.effort is not None and method.effort
        return Outcome(
            dataset=data.name,
            space=data.space,
            n=self.group.n,
            d=data.d,
            k=point.k,
            workload=point.workload,
            batch=point.batches[0],
            method=method.name,
            build=parameters_text(method.parameters),
            search=f"{method.effort}={point.effort}" if tuned else "",
            threads=settings.threads,
            memory_limit_bytes=point.limit_bytes,
            pinned=settings.pinned,
            container=settings.container or "",
            build_s=built.get("build_s"),
            add_s=built.get("add_s"),
            add_rows=built.get("add_rows"),
            add_way=built.get("add_way", ""),
            index_bytes=built.get("index_bytes"),
            build_peak_bytes=built.get("build_peak_bytes"),
            build_baseline_bytes=built.get("build_baseline_bytes"),
        )

    def without_figures(
        self, status: Status, reason: str, points: Sequence[Point] | None = None
    ) -> list[Outcome]:
        """Rows that say why there are no figures: of `points`, else of the whole group."""
        return [
            replace(self.blank(point), status=status, reason=reason)
            for point in (self.stand_ins() if points is None else points)
        ]

    def stand_ins(self) -> list[Point]:
        """A point for each workload and k of the group, standing for all its efforts."""
        return [
            build_point(workload, k, self.place.data.asked)
            for workload in self.place.settings.workloads
            for k in ks_for(self.group.n, self.place.settings.ks)
        ]

    def _path(self, point: Point) -> Path:
        name = f"{self.group.method.name}-{self.group.n}-{self._point_mark(point)}.h5"
        return self.place.directory / "results" / name

    def _point_mark(self, point: Point) -> str:
        return point_mark(self.mark, self.place.settings.repeat, point)


def point_mark(mark: str, repeat: int, point: Point) -> str:
    """Fingerprint of a point's result: the `mark` of its group, how often it is repeated at most,
    and the point.
    """
    return fingerprint(group=mark, repeat=repeat, **asdict(point))


def holds(manifest: Manifest, rows: Sequence[Outcome], mark: str, asked: int) -> bool:
    """Whether the file of these rows is of the group with that mark, for so many queries, however
    often it was repeated.
    """
    points = points_behind(rows, asked)
    return manifest.fingerprint in {point_mark(mark, n, one) for one in points for n in REPEATS}


def points_behind(rows: Sequence[Outcome], asked: int) -> list[Point]:
    """What may have given these rows of one file, of so many queries: whichever has its mark."""
    if not rows:
        return []
    first, batches = rows[0], tuple(row.batch for row in rows)
    search = Point(first.workload, first.k, first.effort, batches, first.memory_limit_bytes)
    failed = build_point(first.workload, first.k, asked)
    return [search, replace(search, effort=None, stage="graph"), failed]


def build_point(workload: Workload, k: int, asked: int) -> Point:
    """What stands for all that a failed build makes impossible of a workload and k."""
    return Point(
        workload, k, None, (0,) if workload == "all" else batches_for(asked), stage="build"
    )


def _same_way(left: Outcome, right: Outcome) -> bool:
    names = ("dataset", "method", "build", "search", "k", "workload", "batch", "threads")
    same = all(getattr(left, name) == getattr(right, name) for name in names)
    return same and left.memory_limit_bytes is None and right.memory_limit_bytes is None


def circumstances(place: Place, group: Group) -> str:
    """Fingerprint of all that the figures of a group depend on, but the point itself."""
    library, settings = group.method.built(), place.settings
    return fingerprint(
        data=place.data.fingerprint,
        n=group.n,
        built=group.configuration.fingerprint,
        library=[library.version, library.built],
        processor=machine_facts().processor.model,
        threads=settings.threads,
        pinned=settings.pinned,
        seed=settings.seed,
        container=settings.container,
        **({"image": settings.image} if settings.image else {}),
    )
