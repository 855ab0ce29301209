"""What the self-join needs beyond vectors and output, in bytes, and how it stays below a bound.

Owns the formula and its enforcement: what scales with n is checked before it is allocated, what can
be cut into blocks is cut to fit, and threads are given up where their buffers don't fit. With u
distinct rows and v visits per point: 96 MiB + 24 n, and the largest of these stages.

    collapse    64 n
    train       16 n + 3 rows (4 d + 24)       rows: 100 per cell, fewer where memory is short
    partition   u (32 + 12 v) + threads x (12 MiB + cells x (6 d + 150))
    join        u (24 + 8 v) + threads x (1 MiB + 1.25 x largest cell x (6 d + 200 + 8 b))
                b = max(64, k / 2), the places of a buffer
    expand      memory_bytes / 8, a block of rows

`cosine`, and vectors that aren't in C order, add 4 n d for a copy of the vectors.
"""

from dataclasses import dataclass

from index_build.selfjoin.join import buffer_places
from index_build.selfjoin.plan import cell_size
from index_build.selfjoin.train import SAMPLE_PER_CELL
from nearfield.errors import UsageError

FIXED = 96 << 20
HELD = 24
COLLAPSE = 64
TRAIN = 16
SAMPLE_COPIES = 3
PARTITION, PARTITION_VISIT = 32, 12
JOIN, JOIN_VISIT = 24, 8
THREAD = 12 << 20
BLOCK_SHARE = 8
MOST_BLOCK = 65_536
FEWEST_PER_CELL = 20


@dataclass(frozen=True)
class Memory:
    """The bound `given` for n rows of d numbers, k neighbours; `copy` bytes are a copy of them."""

    given: int
    n: int
    d: int
    k: int
    copy: int = 0

    @property
    def held(self) -> int:
        """Bytes in use from the first stage to the last."""
        return self.copy + FIXED + HELD * self.n

    def check_copy(self) -> None:
        """Raise `UsageError` unless a copy of the vectors, where one is needed, fits."""
        if self.copy:
            self._check(self.copy + FIXED, "for a copy of the vectors (cosine, or not in C order)")

    def check_start(self) -> None:
        """Raise `UsageError` unless the stages before the plan fit."""
        self._check(self.held + COLLAPSE * self.n, "before any cell is made")

    def check_exact(self) -> None:
        """Raise `UsageError` unless the copy and a block of exact search fit."""
        needed = self.copy + FIXED + self._exact_blocks() + 64 * self._exact_row()
        self._check(needed, "to compare every pair")

    def exact_rows(self) -> int:
        """Rows of a block of exact search."""
        room = self.given - self.copy - FIXED - self._exact_blocks()
        return max(64, min(MOST_BLOCK, room // self._exact_row()))

    def list_rows(self) -> int:
        """Rows of a block whose lists are copied."""
        return self._block(40 * self.k)

    def per_cell(self, cells: int) -> int:
        """Training rows per cell that fit beside what else is held then."""
        before, row = self.held + TRAIN * self.n, max(1, cells) * self._sample_bytes()
        self._check(before + FEWEST_PER_CELL * row, f"to train {cells:,} cells")
        return min(SAMPLE_PER_CELL, (self.given - before) // row)

    def trains_fully(self, cells: int) -> bool:
        """Whether as many training rows fit as there are where memory is no matter."""
        sample = SAMPLE_PER_CELL * max(1, cells) * self._sample_bytes()
        return self.held + max(TRAIN, COLLAPSE) * self.n + sample <= self.given

    def threads_for(self, cells: float, largest: float, points: int, threads: int) -> int:
        """Threads, at most those given, whose buffers fit when each point is in so many cells.

        largest: residents of the largest cell. Raises `UsageError` when not even one fits.
        """
        visits = max(0.0, cells - 1)
        partition = self.held + int(points * (PARTITION + PARTITION_VISIT * visits))
        join = self.held + int(points * (JOIN + JOIN_VISIT * visits))
        thread = self.thread_bytes(largest)
        assigning = THREAD + points // cell_size(points, self.k) * (6 * self.d + 150)
        where = f"for {points:,} points in {cells:.1f} cells each"
        self._check(max(partition + assigning, join + thread), where)
        return min(threads, (self.given - partition) // assigning, (self.given - join) // thread)

    def thread_bytes(self, largest: float) -> int:
        """Buffers of one thread that joins a cell of that size."""
        return int(1.25 * largest * (6 * self.d + 200 + 8 * buffer_places(self.k))) + (1 << 20)

    def _sample_bytes(self) -> int:
        return SAMPLE_COPIES * (4 * self.d + 24)

    def _exact_blocks(self) -> int:
        # exact_search holds two moved blocks of 64 MiB at most, and lengths
        return min(4 * self.n * self.d, 64 << 20) * 5 // 2

    def _exact_row(self) -> int:
        return 100 * (self.k + 32) + 16 * self.d

    def _block(self, row: int) -> int:
        return max(64, min(MOST_BLOCK, self.given // BLOCK_SHARE // row))

    def _check(self, needed: int, where: str) -> None:
        if needed > self.given:
            raise UsageError(
                f"expected memory_bytes of at least {needed:,} {where} (n={self.n:,}, d={self.d}, "
                f"k={self.k}); got {self.given:,}. Give that much, ask for less recall or a "
                "smaller k, or build in shards"
            )
