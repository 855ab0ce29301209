"""The measured processes of one group: what each is asked, within which limits, and how it ended.

Owns the requests and the first use of a library that compiles itself: that takes place before
anything of it is measured, in the parent of all its processes, and its time is nobody's figure but
its own. Refuses to decide what is measured, and to read what was found.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.methods.base import NO_ROOM
from benchmark.results.outcome import Status
from benchmark.runner.container import run_in_container
from benchmark.runner.parents import first_use_expected, parent_of, remember_first_use
from benchmark.runner.plan import Group, Point, ks_for
from benchmark.runner.process import Ended, Limits, Warm
from benchmark.runner.request import CHECKED, AnyRequest, Build, FirstUse, Graph, Search
from benchmark.runner.request import write_request as written
from benchmark.runner.store import Place
from nearfield.errors import DiskFull
from nearfield.space import Int32s


@dataclass(frozen=True)
class Within:
    """Limits of one process beside the settings: seconds left of a budget, bytes in a container."""

    seconds: float | None = None
    memory_bytes: int | None = None


class Asker:
    """Starts the processes of a group, one after the other. Use it as a context manager."""

    def __init__(self, place: Place, group: Group) -> None:
        self.place, self.group = place, group
        self.scratch = place.directory / "indexes" / f"{group.name}.work"
        address, threads = group.configuration.address, place.settings.threads
        self.warm = (
            parent_of(place.directory, address, threads)
            if self.compiles
            else Warm(address, threads, self.scratch.with_suffix(".log"))
        )
        self.cold_s = 0.0
        """Seconds of first uses for this group."""

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not self.compiles:
            self.warm.close()
            self.warm.log.unlink(missing_ok=True)

    @property
    def compiles(self) -> bool:
        """Whether there is a first use before all others; a container has its own, each time."""
        return self.group.method.compiles and self.place.settings.container is None

    @property
    def first_use_s(self) -> float | None:
        """What the first use of this library took on this machine; None where there was none."""
        return self.warm.cold_s if self.compiles and self.warm.used_rows else None

    @property
    def first_use_expected_s(self) -> float | None:
        """What a first use that is still to come will take, by earlier runs; None if unknown."""
        return first_use_expected(self.place.directory, self.group.configuration.address)

    @property
    def first_use_waits(self) -> bool:
        """Whether there is a first use to come."""
        return self.compiles and self.warm.used_rows < self._warm_rows

    @property
    def _warm_rows(self) -> int:
        return min(self.group.n, self.group.method.warm_rows)

    @property
    def rows_to_add(self) -> int:
        """1% more rows, as far as there are any."""
        return min(-(-self.group.n // 100), len(self.place.data.vectors) - self.group.n)

    def first_use(self, seconds: float | None) -> Ended | None:
        """Use the library once if it compiles itself and didn't yet; how that ended where it was
        tried. `seconds`: what it may take, None for as long as any process. What went wrong isn't
        tried again before the benchmark's next run.
        """
        if not self.first_use_waits:
            return None
        rows = self._warm_rows
        if self.warm.unusable is not None:
            return self.warm.unusable
        k = ks_for(rows, self.place.settings.ks)[0]
        out = self._fresh()
        request = FirstUse(**self._common(), parameters=self.group.method.parameters, k=k)
        ended = self.warm.use_first(written(request), rows, self._limits(Within(seconds)))
        self.cold_s += ended.seconds
        self._remember(ended)
        shutil.rmtree(out, ignore_errors=True)
        return ended

    def _remember(self, ended: Ended) -> None:
        if ended.status in {Status.OK, Status.TIMEOUT}:
            remember_first_use(
                self.place.directory,
                self.group.configuration.address,
                ended.seconds,
                whole=ended.status is Status.OK,
            )

    def build(self, within: Within) -> tuple[Ended, Path]:
        """Build and save the index; returns how that ended, and the folder of what was left."""
        request = Build(
            **self._common(),
            parameters=self.group.method.parameters,
            folder=str(self.scratch / "index"),
            ks=list(ks_for(self.group.n, self.place.settings.ks)),
            add_rows=self.rows_to_add,
        )
        return self._ran(request, None, within)

    def ask(self, point: Point, index: Path, checked: Int32s, within: Within) -> tuple[Ended, Path]:
        """Measure a point of the `index`, whose lists of the rows `checked` are kept."""
        data, settings = self.place.data, self.place.settings
        request: AnyRequest
        if point.effort is None:
            request = Graph(
                **self._common(),
                parameters=self.group.method.parameters,
                k=point.k,
                repeat=settings.repeat,
            )
        else:
            queries = str(data.path / "queries.npy") if point.workload == "queries" else None
            request = Search(
                **self._common(),
                folder=str(index),
                k=point.k,
                effort=point.effort,
                queries=queries,
                batches=list(point.batches),
                repeat=settings.repeat,
                limit_bytes=point.limit_bytes,
            )
        return self._ran(request, checked, within)

    def _ran(
        self, request: AnyRequest, checked: Int32s | None, within: Within
    ) -> tuple[Ended, Path]:
        out, settings = self._fresh(), self.place.settings
        path = written(request)
        if checked is not None:
            np.save(out / CHECKED, checked)
        limits = self._limits(within)
        if settings.container is None:
            ended = self.warm.run(path, out / "log", limits)
        else:
            # by its id: what the name means may change, and be another on another machine
            ended = run_in_container(settings.image, self.place.directory, path, limits)
        if ended.status is Status.FAILED and shutil.disk_usage(out).free < NO_ROOM:
            # without room it can't even say so
            raise DiskFull(
                f"no room left on the file system of {self.place.directory}: free space there, "
                "then run the same command again to resume"
            )
        return ended, out

    def _fresh(self) -> Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        return self.scratch

    def _limits(self, within: Within) -> Limits:
        settings = self.place.settings
        timeout_s = min(settings.timeout_s, within.seconds or 0.0)
        return Limits(
            settings.timeout_s if within.seconds is None else timeout_s,
            within.memory_bytes or settings.memory_bytes,
            settings.threads,
        )

    def _common(self) -> Mapping[str, Any]:
        data, settings = self.place.data, self.place.settings
        return {
            "method": self.group.configuration.address,
            "vectors": str(data.path / "vectors.npy"),
            "out": str(self.scratch),
            "n": self.group.n,
            "space": data.space,
            "threads": settings.threads,
            "seed": settings.seed,
            "pinned": settings.pinned,
        }
