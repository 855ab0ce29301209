"""One row of the benchmark's table: a measured point, or why there is none.

Owns the columns and their meaning (docs/formats.md, "A benchmark"). Refuses files and judgement.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Literal

from nearfield.space import SpaceName

Workload = Literal["all", "queries"]
LEVELS = (0.90, 0.95, 0.99)
"""Recalls at which ways are compared."""


class Status(StrEnum):
    """How a measurement ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out of memory"
    CRASHED = "crashed"
    FAILED = "failed"
    NOT_INSTALLED = "not installed"
    UNSUPPORTED = "unsupported"
    DROPPED = "dropped"
    LEFT_OUT = "left out"


UNTRIED = frozenset((Status.DROPPED, Status.LEFT_OUT))
"""What wasn't tried says nothing of a method."""


@dataclass(frozen=True)
class Outcome:
    """One measured point: a workload at (n, k) by a method with build and search parameters.

    Absent figures are None. `build`, `search`: parameters as `name=value` joined by commas, empty
    without any. `batch`: queries handed over at once; 0 for `all`. `memory_limit_bytes`: set in
    the repeat under a limit below the index' size, None elsewhere. Times are in seconds unless
    named otherwise, of the repetition numbered `repetition` (the median one); neighbours, recall
    and distance ratio are that repetition's, too. `repetition_seconds` has all of them. `cold_s`:
    what the first use of a library took that compiles itself; no other time holds any of it.
    """

    dataset: str
    space: SpaceName
    n: int
    d: int
    k: int
    workload: Workload
    batch: int
    method: str
    build: str
    search: str
    threads: int
    memory_limit_bytes: int | None = None
    status: Status = Status.OK
    reason: str = ""
    recall: float | None = None
    recall_low: float | None = None
    recall_high: float | None = None
    distance_ratio: float | None = None
    qps: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    build_s: float | None = None
    search_s: float | None = None
    total_s: float | None = None
    cold_s: float | None = None
    load_s: float | None = None
    add_s: float | None = None
    add_rows: int | None = None
    add_way: str = ""
    index_bytes: int | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    build_peak_bytes: int | None = None
    build_baseline_bytes: int | None = None
    asked: int | None = None
    checked: int | None = None
    repetition: int | None = None
    repetition_seconds: tuple[float, ...] = ()
    repetition_recalls: tuple[float, ...] = ()
    pinned: bool = False
    container: str = ""
    measured_at: str = ""
    configuration: str = ""
    file: str = ""

    @property
    def measured(self) -> bool:
        """Whether there are figures."""
        return self.status is Status.OK

    @property
    def adds_enough(self) -> bool:
        """Whether 1% more rows were added: with few held-out ones it is fewer."""
        return self.add_rows is None or self.add_rows >= -(-self.n // 100)

    @property
    def effort(self) -> int:
        """The search effort, 0 without any."""
        return int(self.search.partition("=")[2] or 0)

    @property
    def label(self) -> str:
        """Method and parameters for people."""
        inside = ", ".join(text for text in (self.build, self.search) if text)
        return f"{self.method}({inside})" if inside else self.method


COLUMNS = tuple(field.name for field in fields(Outcome))
