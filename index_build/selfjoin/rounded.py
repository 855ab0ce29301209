"""Vectors rounded to whole numbers of steps: distances in half the time, wrong by a known bound.

A step is chosen so that the longest vector (from its cell's centre) is LONGEST steps long. Squared
distances of rounded vectors are exact in int32, and differ from those of the vectors by no more
than their rounding errors, which are measured for each. So a threshold can be widened to lose
nothing: what passes is then compared in float64, and the outcome is that of float64 throughout.
Owns rounding and thresholds; refuses to keep or order anything.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel, summing_kernel
from index_build.selfjoin.lanes import COLUMNS, ROWS, fetch
from index_build.selfjoin.pack import aligned, padded, squared_length
from index_build.selfjoin.whole_lanes import PAIRS_PER_STEP, tile_whole
from nearfield.space import Float32s, Int32s

LONGEST = 16_000
"""Twice a coordinate fits int16, and the square of twice a length int32."""
SHORTEST = 1e-15
"""Of the reach that a step is made from: squares of steps stay within float32."""
OUTSIDE = 1 << 30
"""Squared length of padding: farther than any vector."""
FLOAT_ERROR = 0.005
"""Steps by which float32 may miss a vector before it is rounded: 3 roundings of LONGEST, and more.
"""
WIDER = 1.000001
AHEAD = 8


class Rounded(NamedTuple):
    """Vectors as whole numbers, in rows or panels for the tile, and as they are.

    values: int32, a pair of int16 each; norms: int32; errors: float32, in steps; exact: [m, d],
    float64 in rows, which are used often, and float32 in panels.
    """

    values: Int32s
    norms: Int32s
    errors: Float32s
    exact: Float32s | NDArray[np.float64]


def pairs_of(d: int) -> int:
    """Pairs of coordinates that a vector takes."""
    return -(-d // (2 * PAIRS_PER_STEP)) * PAIRS_PER_STEP


def whole_aligned(size: int) -> Int32s:
    """Uninitialised int32 [size] that begins on a cache line."""
    return aligned(size).view(np.int32)


def room_for_columns(count: int, d: int) -> Rounded:
    """Panels for `count` vectors."""
    width = padded(count)
    return Rounded(
        whole_aligned(width * pairs_of(d)), whole_aligned(width), aligned(width),
        aligned(count * d).reshape(count, d),
    )  # fmt: skip


def room_for_rows(count: int, d: int) -> Rounded:
    """Rows for `count` vectors, a multiple of ROWS."""
    return Rounded(
        whole_aligned(count * pairs_of(d)), whole_aligned(count), aligned(count),
        aligned(2 * count * d).view(np.float64).reshape(count, d),
    )  # fmt: skip


@summing_kernel
def _squared_reach(vectors: Float32s, row: int, centre: Float32s, scale: np.float32) -> np.float32:
    total = np.float32(0)
    for t in range(vectors.shape[1]):
        value = (vectors[row, t] - centre[t]) * scale
        total += value * value
    return total


@kernel
def squared_reach(
    vectors: Float32s, rows: Int32s, centre: Float32s, scale: np.float32
) -> np.float32:
    """The largest scaled squared distance of vectors[rows] from the centre."""
    d, largest = vectors.shape[1], np.float32(0)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            fetch(vectors, rows[i + AHEAD] * d, (rows[i + AHEAD] + 1) * d)
        largest = max(largest, _squared_reach(vectors, rows[i], centre, scale))
    return largest


@kernel
def steps_per_unit(squared_reach: np.float32) -> np.float32:
    """Steps in one unit of scaled length."""
    return np.float32(LONGEST) / max(np.sqrt(squared_reach), np.float32(SHORTEST))


@kernel
def _round_one(  # noqa: PLR0913, PLR0917
    vectors: Float32s, row: int, centre: Float32s, scale: np.float32, steps: np.float32,
    line: Int32s, rest: Float32s, exact: Float32s | NDArray[np.float64],
) -> np.float32:  # fmt: skip
    """Round into `line`, copy into `exact`; returns the error in steps."""
    d = vectors.shape[1]
    for t in range(d):
        exact[t] = vectors[row, t]
        value = (vectors[row, t] - centre[t]) * scale * steps
        nearest = np.rint(value)
        line[t] = np.int32(nearest)
        rest[t] = value - nearest
    error = np.sqrt(squared_length(rest, 0, d))
    return error * np.float32(WIDER) + np.float32(FLOAT_ERROR)


@summing_kernel
def _squares(line: Int32s) -> np.int32:
    total = np.int32(0)
    for t in range(len(line)):
        total += np.int32(line[t] * line[t])
    return total


@kernel
def _pack(line: Int32s, halves: NDArray[np.int16]) -> None:
    for t in range(len(halves)):
        halves[t] = np.int16(line[t] * np.int32(-2))


@kernel
def round_rows(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, first: int, count: int,
    centre: Float32s, scale: np.float32, steps: np.float32, out: Rounded, at: int,
) -> None:  # fmt: skip
    """Vectors rows[first : first + count] as rows at.. of `out`, times -2; the rest of ROWS 0."""
    pairs = pairs_of_d(vectors.shape[1])
    line, rest = np.zeros(2 * pairs, np.int32), np.empty(vectors.shape[1], np.float32)
    halves = out.values.view(np.int16)
    for r in range(at, at + ROWS):
        if r >= at + count:
            out.values[r * pairs : (r + 1) * pairs] = 0
            out.norms[r], out.errors[r] = 0, 0
            continue
        out.errors[r] = _round_one(
            vectors, rows[first + r - at], centre, scale, steps, line, rest, out.exact[r]
        )
        out.norms[r] = _squares(line)
        _pack(line, halves[2 * r * pairs : 2 * (r + 1) * pairs])


@kernel
def round_columns(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, first: int, count: int,
    centre: Float32s, scale: np.float32, steps: np.float32, out: Rounded,
) -> np.float32:  # fmt: skip
    """Vectors rows[first : first + count] as panels; returns the largest error. Padding is
    OUTSIDE.
    """
    pairs = pairs_of_d(vectors.shape[1])
    line, rest = np.zeros(2 * pairs, np.int32), np.empty(vectors.shape[1], np.float32)
    largest = np.float32(0)
    for c in range(-(-count // COLUMNS) * COLUMNS):
        panel = (c // COLUMNS) * COLUMNS * pairs + c % COLUMNS
        if c >= count:
            for t in range(pairs):
                out.values[panel + t * COLUMNS] = 0
            out.norms[c], out.errors[c] = OUTSIDE, 0
            continue
        out.errors[c] = _round_one(
            vectors, rows[first + c], centre, scale, steps, line, rest, out.exact[c]
        )
        out.norms[c] = _squares(line)
        largest = max(largest, out.errors[c])
        for t in range(pairs):
            low, high = line[2 * t], line[2 * t + 1]
            out.values[panel + t * COLUMNS] = (low & np.int32(0xFFFF)) | (high << np.int32(16))
    return largest


@kernel
def pairs_of_d(d: int) -> int:
    """`pairs_of`, compiled."""
    return -(-d // (2 * PAIRS_PER_STEP)) * PAIRS_PER_STEP


@kernel
def whole_tile(rows: Rounded, first: int, columns: Rounded, c: int, lines: Int32s) -> None:
    """Squared distances of rows first.. to columns c.., into `lines` of len(columns.norms) each."""
    width = len(columns.norms)
    pairs = len(columns.values) // width
    tile_whole(
        rows.values, first * pairs, pairs, columns.values, c * pairs,
        rows.norms, first, columns.norms, c, lines, first * width + c, width,
    )  # fmt: skip


@kernel
def worst_error(d: int) -> np.float32:
    """No vector is rounded by more steps."""
    return np.float32(np.sqrt(d) / 2 * WIDER + 2 * FLOAT_ERROR)


@kernel
def reaching(squared: np.float32, steps: np.float32, slack: np.float32) -> np.int32:
    """Pairs whose scaled squared distance is up to `squared` come out of the tile no larger than
    this, when their errors add up to `slack`.
    """
    if squared == np.inf:
        return np.int32(OUTSIDE - 1)
    apart = np.sqrt(np.float64(squared)) * WIDER * np.float64(steps) + slack
    return np.int32(min(apart * apart + 1, np.float64(OUTSIDE - 1)))


@kernel
def widened(squared: np.int32, slack: np.float32) -> np.int32:
    """Pairs no farther apart than one that came out as `squared` come out no larger than this."""
    apart = np.sqrt(np.float64(squared)) + 2 * np.float64(slack)
    return np.int32(min(apart * apart + 1, np.float64(OUTSIDE - 1)))


@kernel
def squared_unit(scale: np.float32) -> float:
    """What `apart_squared` is to be multiplied with for a scaled squared distance."""
    return np.float64(scale) * np.float64(scale)
