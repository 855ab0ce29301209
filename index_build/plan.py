"""How a run will be computed: which method, how many parts, at which cost. Decided before any work.

Pure: from n, d, k, space and the asked recall to an immutable plan. The plan never depends on the
number of workers, so neither does the result. The cells of the self-join are its own; here is
decided only how its work is cut (docs/adr/0007-cluster-shards.md).
"""

from dataclasses import dataclass, replace

from index_build.joining import JOINS, SELFJOIN, is_join
from index_build.selfjoin.matrix import SMALL
from nearfield.errors import UsageError
from nearfield.run import RunConfig

AUTO = "auto"
EXACT = "exact"
EXACT_UP_TO = 50_000
"""Below this many rows all pairs cost less than partition, overlap and index (docs/adr/0002)."""
EXACT_BLOCK_ROWS = 8_192
SHARD_ROWS = 200_000
"""Of a library's shards, which overlap."""
MERGE_ROWS = 100_000
ATTEMPTS = 3
SHARD_BYTES = 512 << 20
"""What the task of a shard of the self-join holds: vectors and lists of residents and guests."""
LEAST_SHARDS = 8
"""So many tasks at least, that several hosts have work and wait little for the last one."""
LEAST_SHARD_ROWS = 8_192
"""A shard of fewer rows is mostly guests: the cut gets coarser instead."""
WHOLE_BYTES = 12 << 30
"""At most so much is joined by one task on one host: a crash there costs all of it."""
BLOCK_BYTES = 64 << 20
PART_PLACES = 6_553_600
PART_ROWS = 65_536
HELD_BYTES = 2 << 30
"""Vectors of at most so much lie whole on every host: tasks map them and take what they need."""
EXPECTED_COPIES = 2
"""Shards in which a point's vector stands, about."""
RESERVE = 8
"""Members of each list beyond k that a run keeps for updates: so many it can lose, when none enter
it, before it has to be searched (docs/adr/0008-updates.md)."""


@dataclass(frozen=True)
class Plan:
    """`parts`: row blocks for the exact method, shards (home cells) for any other.

    n: vectors that are told apart; places: neighbours found of each, with the `reserve` beyond k.
    sorted: they lie on a circle or line, so the self-join sorts them: exact, and in parts of rows.
    """

    method: str
    n: int
    places: int
    parts: int
    reason: str
    sorted: bool = False
    reserve: int = 0

    @property
    def exact(self) -> bool:
        """Whether every pair is compared."""
        return self.method == EXACT

    def block(self, part: int) -> tuple[int, int]:
        """First and one past the last row of an exact part."""
        rows = -(-self.n // self.parts)
        return part * rows, min(self.n, (part + 1) * rows)


@dataclass(frozen=True)
class Sizes:
    """How the self-join is cut: into how many shards, and rows per block and per part.

    held: every host has all vectors at hand, so blocks needn't carry them (by distances).
    """

    shards: int
    block_rows: int
    part_rows: int
    held: bool = False

    @property
    def aligned(self) -> "Sizes":
        """With blocks and parts the same ranges of rows, as inner products are cut."""
        rows = min(self.block_rows, self.part_rows)
        return replace(self, block_rows=rows, part_rows=rows)


def plan_for(config: RunConfig, distinct: int, *, track: bool = False) -> Plan:
    """The plan for a configuration with `distinct` different vectors; raises `UsageError`.

    track: they lie on a circle or line (`index_build.selfjoin.on_track`).
    """
    method, reason = _method(config, distinct)
    if method == EXACT:
        return _exact(config, distinct, reason)
    if not is_join(method):
        known = ", ".join((AUTO, EXACT, *JOINS))
        raise UsageError(f"expected a method out of {known}; got {method!r}")
    if method == SELFJOIN:
        return _joined(config, distinct, reason, track=track)
    if config.space == "ip":
        raise UsageError(
            f"method {method} can't build a matrix in space ip: its shards group what is near, "
            f"not what has a large product. Use --method {SELFJOIN} or {EXACT}"
        )
    shards = -(-distinct // SHARD_ROWS)
    return Plan(method, distinct, _others(config, distinct), shards, reason)


def _joined(config: RunConfig, distinct: int, reason: str, *, track: bool) -> Plan:
    # cells, without which updates use no reserve, are made neither by products nor by sorting
    reserve = 0 if track or config.space == "ip" else RESERVE
    # by products, one of several rows may be its own neighbour
    others = distinct if config.space == "ip" else distinct - 1
    places = min(config.columns + reserve, others)
    sizes = sizes_for(distinct, config.d, max(1, places))
    if track:
        parts, reason = -(-distinct // sizes.part_rows), "on a circle or line: sorted, exact"
        return Plan(SELFJOIN, distinct, places, parts, reason, sorted=True)
    if config.recall == 1 or config.n <= SMALL:
        return _exact(config, distinct, "certified, as the self-join does for few rows or recall 1")
    return Plan(SELFJOIN, distinct, places, sizes.shards, reason, reserve=reserve)


def merges_equals(config: RunConfig) -> bool:
    """Whether equal vectors are joined as one: not where products of all pairs are compared."""
    return config.space != "ip" or not plan_for(config, config.n).exact


def _others(config: RunConfig, distinct: int) -> int:
    return min(config.k, distinct - 1)


def _exact(config: RunConfig, distinct: int, reason: str) -> Plan:
    blocks = -(-distinct // EXACT_BLOCK_ROWS)
    return Plan(EXACT, distinct, _others(config, distinct), blocks, reason)


def _method(config: RunConfig, distinct: int) -> tuple[str, str]:
    products = config.space == "ip"
    if distinct == 1 and not products:
        return EXACT, "all vectors are equal"
    if config.method != AUTO:
        return config.method, "as asked"
    # decided before equal vectors are merged, since only a join by products does that
    few = config.n if products else distinct
    if few <= EXACT_UP_TO:
        return EXACT, f"{few:,} distinct vectors are few enough to compare every pair"
    return SELFJOIN, f"the cheapest measured for {distinct:,} distinct vectors"


def sizes_for(n: int, d: int, k: int) -> Sizes:
    """How the self-join of n distinct vectors is cut, from the data alone."""
    # per resident: vectors and growing lists of it and its copies, and what is written of it
    resident = EXPECTED_COPIES * (4 * d + 8 * k) + 12 * k
    return Sizes(
        shards=max(-(-n * resident // SHARD_BYTES), min(LEAST_SHARDS, n // LEAST_SHARD_ROWS)),
        block_rows=max(1, BLOCK_BYTES // (4 * d)),
        part_rows=max(1, min(PART_ROWS, PART_PLACES // k)),
        held=4 * n * d <= HELD_BYTES,
    )


def recall_to_ask(recall: float, attempt: int) -> float:
    """Recall to ask of the self-join in an attempt 0, 1, 2: as asked, then half the loss."""
    return 1 - (1 - recall) / 2**attempt if attempt else recall


def share_of_loss(recall: float, attempt: int) -> float:
    """Recall to ask of each of the two lossy stages (overlap, index) in an attempt 0, 1, 2.

    The first attempt gives each stage a third of the allowed loss and keeps a third as margin;
    every further attempt halves it.
    """
    return 1 - (1 - recall) / (3 * 2**attempt)
