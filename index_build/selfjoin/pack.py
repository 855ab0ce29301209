"""Vectors laid out for the register tile: centred on their cell, scaled, in rows or in panels.

Centring takes the cancellation out of |x|^2 - 2xy + |y|^2; the common power of two `scale` keeps
squares of very small or very large numbers inside float32.
"""

import numpy as np
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel, summing_kernel
from index_build.selfjoin.lanes import COLUMNS, ROWS, tile_differences, tile_products
from nearfield.space import Float32s, Int32s


def padded(count: int) -> int:
    """Columns that a panel of `count` columns takes."""
    return -(-count // COLUMNS) * COLUMNS


def aligned(size: int) -> Float32s:
    """Uninitialised float32 [size] that begins on a cache line."""
    raw = np.empty(size + 16, np.float32)
    skip = (-raw.ctypes.data % 64) // 4
    return raw[skip : skip + size]


def scale_for(vectors: Float32s, rows: NDArray[np.integer]) -> np.float32:
    """The power of two that brings the largest centred coordinate of a sample near to 1."""
    sample = vectors[rows].astype(np.float64)
    largest = float(np.abs(sample - sample.mean(axis=0)).max(initial=0.0))
    if largest == 0:
        return np.float32(1)
    return np.float32(2.0 ** np.clip(-np.ceil(np.log2(largest)), -126, 126))


@summing_kernel
def squared_length(values: Float32s, first: int, stop: int) -> np.float32:
    """Sum of squares of values[first:stop]."""
    total = np.float32(0)
    for t in range(first, stop):
        total += values[t] * values[t]
    return total


@kernel
def pack_rows(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, first: int, count: int, centre: Float32s, scale: np.float32,
    out: Float32s, norms: Float32s,
) -> None:  # fmt: skip
    """ROWS rows, the first `count` of them vectors[rows[first:]], the others zero, times -2."""
    d = vectors.shape[1]
    for r in range(ROWS):
        if r >= count:
            out[r * d : (r + 1) * d] = 0
            norms[r] = 0
            continue
        row = rows[first + r]
        for t in range(d):
            out[r * d + t] = (centre[t] - vectors[row, t]) * scale * np.float32(2)
        norms[r] = squared_length(out, r * d, (r + 1) * d) * np.float32(0.25)


@kernel
def pack_columns(  # noqa: PLR0913, PLR0917
    vectors: Float32s, rows: Int32s, first: int, count: int, centre: Float32s, scale: np.float32,
    out: Float32s, norms: Float32s,
) -> None:  # fmt: skip
    """Panels [d, COLUMNS] of vectors[rows[first:first + count]]; padding has norm NaN."""
    d = vectors.shape[1]
    line = np.empty(d, np.float32)
    for c in range(-(-count // COLUMNS) * COLUMNS):
        panel = (c // COLUMNS) * COLUMNS * d + c % COLUMNS
        if c >= count:
            for t in range(d):
                out[panel + t * COLUMNS] = 0
            norms[c] = np.nan
            continue
        row = rows[first + c]
        for t in range(d):
            line[t] = (vectors[row, t] - centre[t]) * scale
        for t in range(d):
            out[panel + t * COLUMNS] = line[t]
        norms[c] = squared_length(line, 0, d)


@kernel
def squared_tile(  # noqa: PLR0913, PLR0917
    careful: bool, queries: Float32s, first: int, d: int, panel: Float32s, c: int,
    row_norms: Float32s, column_norms: Float32s, lines: Float32s,
) -> None:  # fmt: skip
    """Squared distances of rows first.. to columns c.., into `lines` of len(column_norms) each.

    `careful` sums squared differences, which costs twice as much and never cancels.
    """
    width = len(column_norms)
    if careful:
        tile_differences(
            queries, first * d, d, panel, c * d, row_norms, first, column_norms, c,
            lines, first * width + c, width,
        )  # fmt: skip
    else:
        tile_products(
            queries, first * d, d, panel, c * d, row_norms, first, column_norms, c,
            lines, first * width + c, width,
        )  # fmt: skip
