"""Prepared vectors by row: the old ones where they lie, an update's in their places or after them.

Owns the two kernels that fetch a vector, so that nothing is copied before it is compared.
"""

import numpy as np

from index_build.selfjoin.jit import kernel, run_parallel
from index_build.selfjoin.lanes import fetch
from index_build.selfjoin.points import frozen
from nearfield.errors import InputRejected
from nearfield.space import Float32s, Int32s, SpaceName

OLD = -1
TAKEN = 8_192
AHEAD = 12
"""Vectors lie apart from each other: so many are on their way while one is used."""


class Rows:
    """The vectors of an update: old float32 [n, d], and new [m, d] at `rows` (ascending).

    `place` int32 [rows afterwards]: where a row's vector is among the new, `OLD` for the old ones.
    """

    def __init__(self, old: Float32s, rows: Int32s, new: Float32s, space: SpaceName) -> None:
        self.old, self.new, self.rows, self.space = frozen(old), frozen(new), rows, space
        self.place = np.full(max(len(old), int(rows[-1]) + 1 if len(rows) else 0), OLD, np.int32)
        self.place[rows] = np.arange(len(rows), dtype=np.int32)

    @property
    def unit(self) -> bool:
        """Whether vectors are brought to unit length."""
        return self.space == "cosine"

    def take(self, rows: Int32s, *, threads: int = 1) -> Float32s:
        """Prepared vectors float32 [m, d] of the given rows.

        Raises `InputRejected` where one has no direction under cosine.
        """
        out = np.empty((len(rows), self.old.shape[1]), np.float32)

        def some(first: int) -> None:
            part = slice(first, first + TAKEN)
            directed = _take(self.old, self.new, self.place, rows[part], self.unit, out[part])
            if not directed:
                raise InputRejected("a zero vector has no direction under cosine: choose space l2")

        run_parallel(some, range(0, len(rows), TAKEN), threads)
        return out


@kernel
def vector_of(
    old: Float32s, new: Float32s, place: Int32s, row: int, unit: bool, line: Float32s
) -> bool:
    """Put the vector of a row into `line`; False where it should be of unit length and can't be."""
    at = place[row]
    if at >= 0:
        line[:] = new[at]
    else:
        line[:] = old[row]
    if not unit:
        return True
    total = 0.0
    for t in range(len(line)):
        total += np.float64(line[t]) * np.float64(line[t])
    if total == 0:
        return False
    length = np.sqrt(total)
    for t in range(len(line)):
        line[t] = np.float32(np.float64(line[t]) / length)
    return True


@kernel
def fetch_ahead(old: Float32s, place: Int32s, rows: Int32s, i: int) -> None:
    """Ask for the vector that is needed `AHEAD` turns after that of rows[i] (-1: none)."""
    if i + AHEAD < len(rows):
        row, d = rows[i + AHEAD], old.shape[1]
        if row >= 0 and place[row] < 0:
            fetch(old, row * d, (row + 1) * d)


@kernel
def _take(
    old: Float32s, new: Float32s, place: Int32s, rows: Int32s, unit: bool, out: Float32s
) -> bool:
    directed = True
    for i in range(len(rows)):
        fetch_ahead(old, place, rows, i)
        directed &= vector_of(old, new, place, rows[i], unit, out[i])
    return directed
