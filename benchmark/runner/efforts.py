"""Which efforts of an index are measured, and in which order. Pure.

Tables ask for the cheapest effort at a recall, and recall grows with the effort. So of each k and
workload only the efforts next to those recalls are measured, found by halving: three to five of
eight, and of the dear ones none that says nothing. What the queries found of an effort's recall is
believed of all rows until they are measured, which is why the queries come first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmark.results.outcome import Workload
from benchmark.runner.plan import Point

LEVELS = (0.95, 0.90, 0.99)
"""Recalls of `benchmark.results.outcome`, in the order in which their efforts are looked for."""
ORDER: tuple[Workload, ...] = ("queries", "all")

Recalls = Callable[[Workload, int], Mapping[int, float]]
"""Recall by effort, of what was measured so far of a workload and k."""


def next_to_levels(
    points: Sequence[Point], limited: Point | None, recalls: Recalls
) -> Iterator[Point]:
    """The points worth measuring, each asked for after the one before was measured or given up.

    First one of the queries of each k, so that wherever it stops something is known of all; then
    for the first level k after k, its queries and then its rows; the point under a memory limit;
    and the other levels. One that was given up counts as too dear: smaller efforts are tried in its
    place. Yields nothing that `recalls` knows already.
    """
    lines = [
        _Line([point for point in points if (point.workload, point.k) == key], recalls)
        for key in sorted(
            {(point.workload, point.k) for point in points},
            key=lambda key: (key[1], ORDER.index(key[0])),
        )
    ]
    for line in lines:
        if line.workload == ORDER[0] and (first := line.next_to(LEVELS[0])) is not None:
            yield first
    for level in LEVELS:
        for line in lines:
            while (point := line.next_to(level)) is not None:
                yield point
        if level == LEVELS[0] and limited is not None:
            yield limited


class _Line:
    """The points of one workload and k by effort, ascending; a graph stands apart."""

    def __init__(self, points: Sequence[Point], recalls: Recalls) -> None:
        self.workload, self.k, self.recalls = points[0].workload, points[0].k, recalls
        self.graphs = [point for point in points if point.effort is None]
        self.points = [point for point in points if point.effort is not None]
        self.tried: set[int] = set()

    def next_to(self, level: float) -> Point | None:
        """The point to measure next to find the cheapest effort at `level`; None once it's found,
        or isn't to be found.
        """
        if self.graphs:
            return self.graphs.pop()
        own, reaches = self.recalls(self.workload, self.k), self._reaches(level)
        low = max((i for i, reached in enumerate(reaches) if reached is False), default=-1)
        high = next((i for i in range(low + 1, len(reaches)) if reaches[i]), len(reaches))
        place = (low + high) // 2 if high - low > 1 else high
        if place == len(reaches):
            return None
        effort = self.points[place].effort or 0
        if effort in own or effort in self.tried:
            return None
        self.tried.add(effort)
        return self.points[place]

    def _reaches(self, level: float) -> list[bool | None]:
        """Whether each effort has that recall, None where nothing is known."""
        own, queries = self.recalls(self.workload, self.k), self.recalls("queries", self.k)
        enough = min((e for e, recall in queries.items() if recall >= level), default=None)
        reaches: list[bool | None] = []
        for point in self.points:
            effort = point.effort or 0
            if effort in own:
                reaches.append(own[effort] >= level)
            elif effort in self.tried or (enough is not None and effort >= enough):
                reaches.append(True)
            else:
                reaches.append(queries[effort] >= level if effort in queries else None)
        return reaches
