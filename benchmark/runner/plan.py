"""What will be measured: sizes, k, groups of measurements that share an index, points of a group.

Pure: decisions from settings and facts. Refuses processes and files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.grids import Configuration
from benchmark.methods.base import Method
from benchmark.results.outcome import Workload
from nearfield.errors import UsageError
from nearfield.manifest import fingerprint

LADDER = (10_000, 100_000, 1_000_000)
QUICK_LADDER = (1_000, 10_000)
KS = (10, 100, 300, 1_000)
QUICK_KS = (10, 100)
BATCHES = (1, 100, 300, 1_000)
REPEATS = REPEAT, QUICK_REPEAT = 3, 2
"""Repetitions at most."""
WORKLOADS: tuple[Workload, ...] = ("all", "queries")
STEP = 1.1
"""A rung of the ladder is left out unless the whole set is larger by this factor."""
LEAST_LIMITED_BYTES = 32 << 20
"""Smaller indexes aren't measured under a memory limit: they drown in the allowance for stacks."""
ENOUGH_RECALL = 0.999
"""Higher efforts aren't tried once this is reached."""


@dataclass(frozen=True)
class Settings:
    """How everything is measured. `efforts`: at most so many per k, None for all. `full`: each of
    them, not only those next to the recalls of the tables. `image`: the id of the image that
    `container` names; `lacking`: modules that aren't installed in it.
    """

    ks: tuple[int, ...]
    workloads: tuple[Workload, ...]
    threads: int
    timeout_s: float
    memory_bytes: int
    repeat: int = REPEAT
    efforts: int | None = None
    full: bool = False
    pinned: bool = True
    seed: int = 0
    container: str | None = None
    image: str = ""
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Measurements that share one index: a configuration of the grid at a size."""

    n: int
    configuration: Configuration

    @property
    def method(self) -> Method:
        """The method with its parameters."""
        return self.configuration.method

    @property
    def name(self) -> str:
        """Unique among the groups of a benchmark, and fit for a file name."""
        efforts = list(self.configuration.efforts)
        mark = fingerprint(built=self.configuration.fingerprint, efforts=efforts)
        return f"{self.configuration.name}-{self.n}-{mark[:8]}"

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.configuration} on {self.n:,} rows"


@dataclass(frozen=True)
class Point:
    """One measured configuration of a group.

    stage: `search` asks the index with an effort; `graph` has the method make all lists itself;
    `build` stands for everything that a failed build makes impossible. `limit_bytes`: memory that
    a search may take, below the size of the index.
    """

    workload: Workload
    k: int
    effort: int | None
    batches: tuple[int, ...]
    limit_bytes: int | None = None
    stage: Literal["search", "graph", "build"] = "search"


def sizes_for(base: int, asked: Sequence[int] | None, *, quick: bool) -> tuple[int, ...]:
    """Sizes to measure, ascending: as asked or the ladder, cut by the `base` rows that there are.

    Without `asked` the whole set is the last rung. Raises `UsageError` for sizes below 2.
    """
    if asked is not None:
        if min(asked, default=0) < 2:
            raise UsageError(f"expected sizes of at least 2 rows, got {min(asked, default=0)}")
        return tuple(sorted({min(n, base) for n in asked}))
    if quick:
        return tuple(sorted({min(n, base) for n in QUICK_LADDER}))
    return (*(n for n in LADDER if n * STEP <= base), base)


def ks_for(n: int, ks: Sequence[int]) -> tuple[int, ...]:
    """Those of `ks` below n; n - 1 where none is: a row has n - 1 others."""
    return tuple(k for k in ks if k < n) or (n - 1,)


def batches_for(asked: int) -> tuple[int, ...]:
    """Batch sizes that so many queries can fill."""
    return tuple(batch for batch in BATCHES if batch <= asked)


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """`name=value` joined by commas."""
    return ",".join(f"{name}={value}" for name, value in parameters.items())


def thinned(efforts: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the efforts, spread evenly, the first and the last among them."""
    if most is None or len(efforts) <= most:
        return list(efforts)
    places = {round(i * (len(efforts) - 1) / max(1, most - 1)) for i in range(most)}
    return [efforts[place] for place in sorted(places)]


def spread(points: Sequence[Point]) -> list[Point]:
    """The points in an order in which one can stop anywhere: each workload and k in turn, of each
    the middle effort first, then the middles of the halves, the upper one before.
    """
    lines: dict[tuple[int, Workload], list[Point]] = {}
    for point in points:
        lines.setdefault((point.k, point.workload), []).append(point)
    turns = [_middles(line) for line in lines.values()]
    longest = max(map(len, turns), default=0)
    return [turn[place] for place in range(longest) for turn in turns if place < len(turn)]


def _middles(line: Sequence[Point]) -> list[Point]:
    order, parts = [], [(0, len(line))]
    for low, high in parts:
        if low < high:
            middle = (low + high) // 2
            order.append(line[middle])
            parts += [(middle + 1, high), (low, middle)]
    return order


def points_of(
    group: Group, settings: Settings, efforts: Mapping[int, Sequence[int]], asked: int
) -> list[Point]:
    """The points of a group whose index suggests `efforts` for each k; cheapest first."""
    method, points = group.method, []
    for k in ks_for(group.n, settings.ks):
        if "all" in settings.workloads and method.graphs:
            points.append(Point("all", k, None, (0,), stage="graph"))
        if "queries" not in method.workloads:
            continue
        tried = group.configuration.efforts_for(k, efforts.get(k, ()))
        chosen = thinned(tried, settings.efforts)
        if "queries" in settings.workloads:
            points += [Point("queries", k, effort, batches_for(asked)) for effort in chosen]
        if "all" in settings.workloads and "all" in method.workloads:
            points += [Point("all", k, effort, (0,)) for effort in chosen]
    return points


def limited_point(points: Sequence[Point], index_bytes: int) -> Point | None:
    """The point that is measured again with half the index' size as memory, if that says much."""
    searches = [point for point in points if point.effort is not None]
    if index_bytes < LEAST_LIMITED_BYTES or not searches:
        return None
    queries = [point for point in searches if point.workload == "queries"] or searches
    same = [point for point in queries if point.k == queries[0].k]
    middle = same[len(same) // 2]
    batches = tuple(batch for batch in middle.batches if batch in {0, 100}) or middle.batches[:1]
    return Point(middle.workload, middle.k, middle.effort, batches, index_bytes // 2)
