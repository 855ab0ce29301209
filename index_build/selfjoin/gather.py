"""What passes the bounds of a line of a tile in whole numbers, and how far it really is.

Which of them pass can't be foreseen, so they are gathered first and measured one after the other
without a branch. Owns that; refuses to choose bounds or to keep anything.
"""

import numpy as np

from index_build.selfjoin.jit import kernel
from index_build.selfjoin.lanes import MASK_LANES, lowest_bit
from index_build.selfjoin.rounded import Rounded
from index_build.selfjoin.whole_lanes import apart_squared, passing_whole
from nearfield.space import Float32s, Int32s


@kernel
def gather_passing(line: Int32s, bounds: Int32s, bound: np.int32, columns: Int32s) -> int:
    """Put the columns of the numbers that pass their own bound or the common one into `columns`;
    returns how many do. The line's length is a multiple of 16.
    """
    found = 0
    for c in range(0, len(line), MASK_LANES):
        hits = passing_whole(line, c, bounds, c, bound)
        while hits:
            columns[found] = c + lowest_bit(hits)
            hits &= hits - 1
            found += 1
    return found


@kernel
def no_bounds(width: int) -> Int32s:
    """Bounds of their own that nothing passes."""
    return np.full(width, -1, np.int32)


@kernel
def exact_squared(queries: Rounded, r: int, columns: Rounded, j: int, unit: float) -> np.float32:
    """Scaled squared distance of row r to column j, from float64; unit: `squared_unit`."""
    d = columns.exact.shape[1]
    return np.float32(unit * apart_squared(queries.exact, r * d, columns.exact, j * d, d))


@kernel
def gather_exact(  # noqa: PLR0913, PLR0917
    queries: Rounded, r: int, columns: Rounded, line: Int32s, nothing: Int32s, bound: np.int32,
    unit: float, squared: Float32s, near: Int32s,
) -> int:  # fmt: skip
    """Columns whose number passes `bound`, into `near`, and their exact scaled squared distances
    to row r; returns how many. nothing: `no_bounds` of the line's length.
    """
    found = gather_passing(line, nothing, bound, near)
    for i in range(found):
        squared[i] = exact_squared(queries, r, columns, near[i], unit)
    return found
