"""How a run will be computed: which method, how many parts, at which cost. Decided before any work.

Pure: from n, d, k, space and the asked recall to an immutable plan. The plan never depends on the
number of workers, so neither does the result.
"""

from dataclasses import dataclass

from index_build.joining import JOINS, SELFJOIN, is_join
from nearfield.errors import UsageError
from nearfield.run import RunConfig

AUTO = "auto"
EXACT = "exact"
EXACT_UP_TO = 50_000
"""Below this many rows all pairs cost less than partition, overlap and index (docs/adr/0002)."""
EXACT_BLOCK_ROWS = 8_192
SHARD_ROWS = 200_000
SELFJOIN_SHARD_ROWS = 1_000_000
"""Shards overlap, which costs; the self-join has cells of its own, so its shards can be large."""
MERGE_ROWS = 100_000
ATTEMPTS = 3


@dataclass(frozen=True)
class Plan:
    """`parts`: row blocks for the exact method, shards (home cells) for any other."""

    method: str
    n: int
    parts: int
    reason: str

    @property
    def exact(self) -> bool:
        """Whether every pair is compared."""
        return self.method == EXACT

    def block(self, part: int) -> tuple[int, int]:
        """First and one past the last row of an exact part."""
        rows = -(-self.n // self.parts)
        return part * rows, min(self.n, (part + 1) * rows)


def plan_for(config: RunConfig, distinct: int) -> Plan:
    """The plan for a configuration with `distinct` different vectors; raises `UsageError`."""
    method, reason = _method(config, distinct)
    if method == EXACT:
        return Plan(method, distinct, -(-distinct // EXACT_BLOCK_ROWS), reason)
    if not is_join(method):
        known = ", ".join((AUTO, EXACT, *JOINS))
        raise UsageError(f"expected a method out of {known}; got {method!r}")
    if config.space == "ip":
        raise UsageError(
            f"method {method} can't build a matrix in space ip: cells group what is near, "
            f"not what has a large product. Use --method {EXACT}"
        )
    rows = SELFJOIN_SHARD_ROWS if method == SELFJOIN else SHARD_ROWS
    return Plan(method, distinct, -(-distinct // rows), reason)


def _method(config: RunConfig, distinct: int) -> tuple[str, str]:
    if distinct == 1:
        return EXACT, "all vectors are equal"
    if config.method != AUTO:
        return config.method, "as asked"
    if config.space == "ip":
        return EXACT, "inner products have no cells, so every pair is compared"
    if distinct <= EXACT_UP_TO:
        return EXACT, f"{distinct:,} distinct vectors are few enough to compare every pair"
    return SELFJOIN, f"the cheapest measured for {distinct:,} distinct vectors"


def share_of_loss(recall: float, attempt: int) -> float:
    """Recall to ask of each of the two lossy stages (overlap, index) in an attempt 0, 1, 2.

    The first attempt gives each stage a third of the allowed loss and keeps a third as margin;
    every further attempt halves it.
    """
    return 1 - (1 - recall) / (3 * 2**attempt)
